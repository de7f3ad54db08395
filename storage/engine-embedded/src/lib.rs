//! engine-embedded
