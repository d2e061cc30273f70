//! The targets, as the tests have them: one source, so that an input found here fails there.

#[path = "../domain/fuzz.rs"]
pub mod fuzz;
