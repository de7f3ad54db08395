//! Needles in a text that streams by, both folded (see [`mail::fold`]).

use mail::fold::fold_into;
use memchr::memmem::Finder;

/// Looks for needles in a text that comes in pieces.
#[derive(Debug)]
pub(super) struct Window<'a> {
    needles: &'a [Finder<'a>],
    found: Vec<bool>,
    /// The end of the folded text so far, as long as a needle may reach into it.
    text: String,
    keep: usize,
}

impl<'a> Window<'a> {
    pub(super) fn new(needles: &'a [Finder<'a>]) -> Self {
        let longest = needles.iter().map(|needle| needle.needle().len()).max().unwrap_or(0);
        Self {
            needles,
            found: vec![false; needles.len()],
            text: String::new(),
            keep: longest.saturating_sub(1),
        }
    }

    pub(super) fn push(&mut self, text: &str) {
        fold_into(text, &mut self.text);
        for (needle, found) in self.needles.iter().zip(&mut self.found) {
            *found = *found || needle.find(self.text.as_bytes()).is_some();
        }
        let mut cut = self.text.len().saturating_sub(self.keep);
        while !self.text.is_char_boundary(cut) {
            cut -= 1;
        }
        self.text.drain(..cut);
    }

    /// Which needles were found.
    pub(super) fn found(&self) -> &[bool] {
        &self.found
    }

    pub(super) fn all_found(&self) -> bool {
        self.found.iter().all(|found| *found)
    }
}

#[cfg(test)]
mod tests {
    use mail::fold::fold;

    use super::*;

    #[test]
    fn needles_are_found_across_pieces() {
        let umlaut = fold("ü");
        let needles = [Finder::new(&umlaut), Finder::new("nadel"), Finder::new("fehlt")];
        for cut in 1..6 {
            let mut window = Window::new(&needles);
            let text: Vec<char> = "heuhaufenNADELheu über".chars().collect();
            for piece in text.chunks(cut) {
                window.push(&piece.iter().collect::<String>());
            }
            assert_eq!(window.found(), [true, true, false]);
            assert!(!window.all_found());
        }
    }
}
