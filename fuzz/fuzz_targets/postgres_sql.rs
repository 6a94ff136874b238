//! A client's texts: none is too odd to be read, and what is quoted is never taken for more than a string.
#![no_main]

use groove_postgres::sql;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let reading = sql::read(text);
    assert!(reading.prepared.iter().all(|prepared| prepared.name().len() <= 63));
    if !text.windows(7).any(|window| window == b"$quote$") {
        let quoted = [b"SELECT $quote$", text, b"$quote$"].concat();
        assert_eq!(sql::read(&quoted), sql::Reading::default());
    }
});
