//! Defects to plant, so that the checker can be seen to notice them. All are engines that lie to the nodes above.

/// How an engine lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    /// Now and then a compare-and-swap is said to be applied, and is not.
    AppliedWithoutEffect,
    /// A compare-and-swap whose outcome is not known is said to be applied.
    UnknownIsSuccess,
    /// Now and then a segment with messages is said to be stored, and is not.
    LostSegment,
    /// Now and then a page is said to be written, and is not.
    LostPage,
    /// Now and then a compare-and-swap is said to be refused, which is to say that it was certainly not applied, and was.
    RefusedWithEffect,
    /// A head is not looked at where no hint said that it moved.
    TrustedHints,
}

impl Bug {
    pub(crate) const ALL: [Self; 6] = [
        Self::AppliedWithoutEffect,
        Self::UnknownIsSuccess,
        Self::LostSegment,
        Self::LostPage,
        Self::RefusedWithEffect,
        Self::TrustedHints,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }
}
