//! `sql_text` of `tests/domain/fuzz.rs` under libfuzzer. Refused inputs stay in the corpus: they mark paths too.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    chronos_fuzz::fuzz::sql_text(data);
});
