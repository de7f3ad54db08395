//! What a crash leaves, and damage.
