//! What the store's statements are written against, whichever database holds it: values, rows, and a transaction.
//!
//! Statements are written once, with `?1` for the first value. Dates are RFC 3339 text here; PostgreSQL keeps them as
//! dates where the column says so.

use super::ClinicStoreError;

/// A value that goes into a statement.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// Nothing.
    Null,
    /// A whole number.
    Int(i64),
    /// Another number.
    Real(f64),
    /// Text, or a date.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Int)
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

/// A value that came out of a database.
#[derive(Clone, PartialEq)]
pub(super) enum Cell {
    /// Nothing.
    Null,
    /// A whole number; 0 and 1 where a database has no yes and no.
    Int(i64),
    /// Another number.
    Real(f64),
    /// Text, or a date.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl From<Value<'_>> for Cell {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Int(number) => Self::Int(number),
            Value::Real(number) => Self::Real(number),
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_owned()),
        }
    }
}

/// A row that is read column by column, in the statement's order.
pub(super) struct Row(std::vec::IntoIter<Cell>);

impl From<Vec<Cell>> for Row {
    fn from(cells: Vec<Cell>) -> Self {
        Self(cells.into_iter())
    }
}

impl Row {
    fn next(&mut self) -> Result<Cell, ClinicStoreError> {
        self.0.next().ok_or(ClinicStoreError::Unexpected)
    }

    pub(super) fn text(&mut self) -> Result<String, ClinicStoreError> {
        self.maybe_text()?.ok_or(ClinicStoreError::Unexpected)
    }

    pub(super) fn maybe_text(&mut self) -> Result<Option<String>, ClinicStoreError> {
        match self.next()? {
            Cell::Text(text) => Ok(Some(text)),
            Cell::Null => Ok(None),
            Cell::Int(_) | Cell::Real(_) | Cell::Bytes(_) => Err(ClinicStoreError::Unexpected),
        }
    }

    pub(super) fn int(&mut self) -> Result<i64, ClinicStoreError> {
        self.maybe_int()?.ok_or(ClinicStoreError::Unexpected)
    }

    pub(super) fn maybe_int(&mut self) -> Result<Option<i64>, ClinicStoreError> {
        match self.next()? {
            Cell::Int(number) => Ok(Some(number)),
            Cell::Null => Ok(None),
            Cell::Text(_) | Cell::Real(_) | Cell::Bytes(_) => Err(ClinicStoreError::Unexpected),
        }
    }

    /// A number that is never negative, nor above `u32`.
    pub(super) fn count(&mut self) -> Result<u32, ClinicStoreError> {
        u32::try_from(self.int()?).map_err(|_| ClinicStoreError::Unexpected)
    }

    pub(super) fn real(&mut self) -> Result<f64, ClinicStoreError> {
        match self.next()? {
            Cell::Real(number) => Ok(number),
            Cell::Null | Cell::Text(_) | Cell::Int(_) | Cell::Bytes(_) => Err(ClinicStoreError::Unexpected),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, ClinicStoreError> {
        match self.next()? {
            Cell::Bytes(bytes) => Ok(bytes),
            Cell::Null | Cell::Text(_) | Cell::Int(_) | Cell::Real(_) => Err(ClinicStoreError::Unexpected),
        }
    }
}

/// A transaction under way.
pub(super) trait Transaction {
    /// Changes rows, and says how many.
    fn run(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, ClinicStoreError>;

    /// Asks for rows.
    fn ask(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, ClinicStoreError>;
}
