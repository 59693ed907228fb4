//! Carries out a choice.
