//! placeholder
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// x
    Retryable,
    /// x
    Final,
    /// x
    Unknown,
}
/// x
#[must_use]
pub fn read(_: &str) -> Hint {
    Hint::Unknown
}
