//! Addresses as operators write them: whatever parses is written back so that it parses to the same.
#![no_main]

use groove_common::ids::Address;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
});
