//! One number for each little while of a session, in windows as they were heard. No I/O.

/// See the top of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Track<T> {
    /// Seconds that a number stands for.
    step: f64,
    /// Where each window begins, seconds, and its numbers; in order of time.
    windows: Vec<(f64, Vec<T>)>,
}

impl<T> Track<T> {
    /// Nothing yet; each number stands for `step` seconds.
    #[must_use]
    pub fn new(step: f64) -> Self {
        Self { step, windows: Vec::new() }
    }

    /// Takes the next window, which begins at `start`, seconds.
    pub fn push(&mut self, start: f64, numbers: Vec<T>) {
        self.windows.push((start, numbers));
    }

    /// The numbers of every while that a stretch touches, seconds.
    pub fn within(&self, stretch: (f64, f64)) -> impl Iterator<Item = &T> {
        let first = self.windows.partition_point(|(start, _)| *start <= stretch.0).saturating_sub(1);
        let windows = self.windows[first..].iter().take_while(move |(start, _)| *start < stretch.1);
        windows.flat_map(move |(start, numbers)| {
            let at = |time: f64, end: fn(f64) -> f64| end((time - start) / self.step).max(0.0) as usize;
            let from = at(stretch.0, f64::floor).min(numbers.len());
            let to = at(stretch.1, f64::ceil).clamp(from, numbers.len());
            &numbers[from..to]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_has_the_numbers_it_touches_across_windows_and_holes() {
        let mut track = Track::new(0.5);
        track.push(0.0, vec![1, 2, 3, 4]);
        track.push(2.0, vec![5, 6]);
        track.push(10.0, vec![7]);
        let within = |from, to| track.within((from, to)).copied().collect::<Vec<i32>>();
        assert_eq!(within(0.6, 0.9), [2]);
        assert_eq!(within(0.0, 1.0), [1, 2]);
        assert_eq!(within(1.4, 2.6), [3, 4, 5, 6]);
        assert_eq!(within(3.0, 10.1), [7]);
        assert_eq!(within(4.0, 9.0), [0; 0]);
        assert_eq!(Track::<i32>::new(1.0).within((0.0, 5.0)).count(), 0);
    }
}
