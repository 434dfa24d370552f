//! Properties whose cases are the same in every run.

#![allow(unreachable_pub)] // a module of each test that uses it

use proptest::test_runner::{Config, RngSeed};

/// A run of `cases` cases, drawn from a seed that stays; what fails is written nowhere.
pub fn repeatable(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6d65_696e_6865_6c64),
        ..Config::default()
    }
}
