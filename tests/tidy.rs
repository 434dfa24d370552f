//! The project's style, as a test.
