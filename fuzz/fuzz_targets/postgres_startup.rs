//! The first bytes of a client: no panic, and what decodes is the same when it is written and read again.
#![no_main]

use bytes::BytesMut;
use groove_postgres::wire::startup::{self, Opening};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let mut input = BytesMut::from(text);
    let Ok(Some(opening)) = startup::decode(&mut input) else { return };
    let mut again = BytesMut::new();
    match &opening {
        Opening::Ssl => startup::put_ssl_request(&mut again),
        Opening::GssEnc => return,
        Opening::Cancel(key) => startup::put_cancel(&mut again, key),
        Opening::Startup(found) if found.version.major == 3 => {
            let parameters = found.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            startup::put_startup(&mut again, found.version, parameters);
        }
        Opening::Startup(_) => return,
    }
    assert_eq!(startup::decode(&mut again), Ok(Some(opening)));
});
