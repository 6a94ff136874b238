//! Codecs whole, byte by byte, and there and back.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::startup::{CancelKey, Opening, Startup, Version};
use super::{DecodeError, Header, Limits, Splice, backend, decode, frontend, put, put_cstr, startup};

fn byte_by_byte<T>(
    bytes: &[u8],
    mut decode: impl FnMut(&mut BytesMut) -> Result<Option<T>, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    let mut input = BytesMut::new();
    for (index, byte) in bytes.iter().enumerate() {
        input.extend_from_slice(&[*byte]);
        match decode(&mut input)? {
            Some(found) => {
                assert_eq!(index + 1, bytes.len(), "complete only with its last byte");
                assert!(input.is_empty());
                return Ok(Some(found));
            }
            None => assert_eq!(input.len(), index + 1, "an incomplete message stays where it is"),
        }
    }
    Ok(None)
}

#[test]
fn a_message_is_complete_with_its_last_byte() {
    let mut wire = BytesMut::new();
    frontend::put_query(&mut wire, "select 1");
    let frame = byte_by_byte(&wire, |input| decode(input, &Limits::default())).unwrap().unwrap();
    assert_eq!((frame.tag, frame.body()), (b'Q', &b"select 1\0"[..]));
    assert_eq!(frontend::query_text(&frame.raw), b"select 1");
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    assert_eq!(Header::read(b"Q\0\0\0\x03"), Err(DecodeError::Length));
    assert_eq!(Header::read(b"Q\xff\xff\xff\xff"), Err(DecodeError::Length));
    assert_eq!(frontend::header(b"S\0\0\x40\0"), Err(DecodeError::Length));
    assert_eq!(frontend::header(b"Q\x40\0\0\0"), Err(DecodeError::Length));
    assert_eq!(frontend::header(b"!"), Err(DecodeError::FrontendType(b'!')));
    let mut large = BytesMut::from(&b"Q\0\0\x10\0"[..]);
    assert!(matches!(decode(&mut large, &Limits { message: 64 }), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn startup_packets() {
    let mut wire = BytesMut::new();
    startup::put_ssl_request(&mut wire);
    assert_eq!(byte_by_byte(&wire, startup::decode), Ok(Some(Opening::Ssl)));
    for secret in [&b"1234"[..], &[7; 256]] {
        let key = CancelKey { pid: -7, secret: Bytes::copy_from_slice(secret) };
        wire.clear();
        startup::put_cancel(&mut wire, &key);
        assert_eq!(byte_by_byte(&wire, startup::decode), Ok(Some(Opening::Cancel(key))));
    }
    let broken = |body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap();
        startup::decode(&mut BytesMut::from(&[&length.to_be_bytes(), body].concat()[..])).unwrap_err()
    };
    assert_eq!(broken(b"\0\x03\0\0user\0u\0"), DecodeError::StartupLayout);
    assert_eq!(broken(b"\0\x03\0\0user\0u\0\0x"), DecodeError::StartupLayout);
    assert_eq!(broken(b"\0\x03\0\0user\0\xff\0\0"), DecodeError::Text);
    assert_eq!(broken(b"\0"), DecodeError::StartupLength);
    assert_eq!(broken(&[0; 20_000]), DecodeError::StartupLength);
    assert_eq!(broken(b"\x04\xd2\x16\x2e\0\0\0\x01abc"), DecodeError::StartupLength);
}

#[test]
fn parse_messages() {
    let mut wire = BytesMut::new();
    frontend::put_parse(&mut wire, b"s1", b"select $1\0\0\x01\0\0\0\x17");
    let parse = frontend::Parse::read(&wire).unwrap();
    assert_eq!((parse.name, parse.text), (&b"s1"[..], &b"select $1"[..]));
    for broken in [&b"s1\0select\0\0\x02\0\0\0\x17"[..], b"s1\0select", b"s1", b"s1\0select\0"] {
        wire.clear();
        put(&mut wire, b'P', |out| out.extend_from_slice(broken));
        assert_eq!(frontend::Parse::read(&wire), Err(DecodeError::Format));
    }
}

#[test]
fn a_renamed_bind_keeps_its_length_right() {
    let mut wire = BytesMut::new();
    put(&mut wire, b'B', |out| {
        put_cstr(out, b"portal");
        put_cstr(out, b"mine");
        out.extend_from_slice(&[0; 6]);
    });
    assert_eq!(frontend::bind_names(&wire), Some((&b"portal"[..], &b"mine"[..])));
    assert_eq!(frontend::bind_names(&wire[..14]), None);
    let mut renamed = BytesMut::new();
    frontend::put_bind_head(&mut renamed, wire.len(), b"portal", b"mine", b"groove_17");
    renamed.extend_from_slice(&wire[5 + 7 + 5..]);
    let frame = decode(&mut renamed, &Limits::default()).unwrap().unwrap();
    assert!(renamed.is_empty());
    assert_eq!(frame.body(), b"portal\0groove_17\0\0\0\0\0\0\0");
}

#[test]
fn errors_have_their_fields() {
    let mut wire = BytesMut::new();
    let fields = backend::ErrorFields {
        severity: "ERROR",
        code: "53300",
        message: "full",
        detail: None,
        hint: Some("wait"),
    };
    backend::put_error(&mut wire, &fields);
    let frame = decode(&mut wire, &Limits::default()).unwrap().unwrap();
    assert_eq!(backend::error_field(frame.body(), b'C'), Some(&b"53300"[..]));
    assert_eq!(backend::error_field(frame.body(), b'H'), Some(&b"wait"[..]));
    assert_eq!(backend::error_field(frame.body(), b'D'), None);
    assert_eq!(backend::error_field(b"Cnever ends", b'C'), None);
}

#[test]
fn splicing_swaps_when_all_is_kept() {
    let (mut input, mut out) = (BytesMut::from(&b"abc"[..]), BytesMut::new());
    let before = input.as_ptr();
    let mut splice = Splice::new(&mut input, &mut out);
    splice.keep(1);
    splice.keep(2);
    splice.finish();
    assert_eq!((&input[..], &out[..], out.as_ptr()), (&b""[..], &b"abc"[..], before));
}

#[test]
fn splicing_keeps_order() {
    let (mut input, mut out) = (BytesMut::from(&b"abcdef"[..]), BytesMut::from(&b"<"[..]));
    let mut splice = Splice::new(&mut input, &mut out);
    splice.keep(2);
    splice.cut(1);
    splice.out().extend_from_slice(b"X");
    splice.keep(1);
    assert_eq!(splice.rest(), b"ef");
    splice.finish();
    assert_eq!((&input[..], &out[..]), (&b"ef"[..], &b"<abXd"[..]));
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z_ ]{1,12}"
}

proptest! {
    #[test]
    fn a_startup_comes_back_as_it_was(
        parameters in prop::collection::vec((name(), "\\PC{0,12}"), 0..8),
        minor in 0u16..5,
    ) {
        let version = Version { major: 3, minor };
        let mut wire = BytesMut::new();
        startup::put_startup(&mut wire, version, parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let opening = byte_by_byte(&wire, startup::decode).unwrap();
        prop_assert_eq!(opening, Some(Opening::Startup(Startup { version, parameters })));
    }

    #[test]
    fn authentication_comes_back_as_it_was(salt: [u8; 4], mechanisms in prop::collection::vec(name(), 0..4), data: Vec<u8>) {
        use backend::Authentication as A;
        let data = Bytes::from(data);
        for message in [
            A::Ok, A::Cleartext, A::Md5(salt), A::Sasl(mechanisms.clone()),
            A::SaslContinue(data.clone()), A::SaslFinal(data.clone()), A::Other(7),
        ] {
            let mut wire = BytesMut::new();
            backend::put_authentication(&mut wire, &message);
            let frame = byte_by_byte(&wire, |input| decode(input, &Limits::default())).unwrap().unwrap();
            prop_assert_eq!(A::read(frame.raw.slice(super::HEADER..)), Ok(message));
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = frontend::header(&bytes);
        let _ = frontend::Parse::read(&bytes);
        let _ = frontend::Target::read(&bytes);
        let _ = frontend::bind_names(&bytes);
        let _ = frontend::sasl_initial(&bytes);
        let _ = backend::parameter_status(&bytes);
        let _ = backend::error_field(&bytes, b'C');
        let _ = backend::Authentication::read(Bytes::from(bytes.clone()));
        let _ = startup::decode(&mut BytesMut::from(&bytes[..]));
        let _ = decode(&mut BytesMut::from(&bytes[..]), &Limits::default());
    }
}
