use proptest::prelude::*;

use super::*;

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = V2_START.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

fn client_of(text: &str) -> Header {
    Header::Client(text.parse().unwrap())
}

const V4_BODY: &[u8] = &[192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];

#[test]
fn version_1_lines_of_the_specification() {
    let cases: [(&[u8], Header); 5] = [
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", client_of("255.255.255.255:65535")),
        (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", client_of("192.168.0.1:56324")),
        (b"PROXY TCP6 2001:db8::1 ::1 1 0\r\n", client_of("[2001:db8::1]:1")),
        (b"PROXY UNKNOWN\r\n", Header::Own),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", Header::Own),
    ];
    for (line, header) in cases {
        assert_eq!(parse(line), Ok(Some((header, line.len()))));
        let mut longer = line.to_vec();
        longer.extend(b"GET / HTTP/1.1\r\n");
        assert_eq!(parse(&longer), Ok(Some((header, line.len()))));
    }
}

#[test]
fn version_1_is_strict() {
    for line in [
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        "PROXY TCP4  192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 +56324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
        "PROXY TCP4 192.168.0.01 192.168.0.11 1 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 1 443 \r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 1\r\n",
        "PROXY TCP4 ::1 ::1 1 443\r\n",
        "PROXY TCP6 127.0.0.1 127.0.0.1 1 443\r\n",
        "PROXY UDP4 192.168.0.1 192.168.0.11 1 443\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(ParseError::Version1), "{line:?}");
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    assert_eq!(parse(&endless), Err(ParseError::Version1));
    assert_eq!(parse(&endless[..106]), Ok(None));
    for other in ["GET / HTTP/1.1\r\n", "proxy TCP4", "\r\n\r\n\0\r\nQUIX"] {
        assert_eq!(parse(other.as_bytes()), Err(ParseError::Missing));
    }
}

#[test]
fn version_2_of_every_family() {
    let v6: Vec<u8> = [[0x20; 16].as_slice(), &[0; 16], &[0, 1, 0, 2]].concat();
    let with_tlvs = [V4_BODY, &[0x04, 0, 3, b'a', b'b', b'c']].concat();
    let cases = [
        (v2(0x21, 0x11, V4_BODY), client_of("192.0.2.7:12345")),
        (v2(0x21, 0x11, &with_tlvs), client_of("192.0.2.7:12345")),
        (v2(0x21, 0x21, &v6), client_of("[2020:2020:2020:2020:2020:2020:2020:2020]:1")),
        (v2(0x21, 0x31, &[0; 216]), Header::Own),
        (v2(0x21, 0x00, &[]), Header::Own),
        (v2(0x20, 0x11, V4_BODY), Header::Own),
        (v2(0x20, 0x00, &[]), Header::Own),
        (v2(0x20, 0xff, b"whatever"), Header::Own),
    ];
    for (bytes, header) in cases {
        assert_eq!(parse(&bytes), Ok(Some((header, bytes.len()))), "{bytes:?}");
    }
}

#[test]
fn version_2_is_strict() {
    assert_eq!(parse(&v2(0x11, 0x11, V4_BODY)), Err(ParseError::Command(0x11)));
    assert_eq!(parse(&v2(0x22, 0x11, V4_BODY)), Err(ParseError::Command(0x22)));
    assert_eq!(parse(&v2(0x21, 0x12, V4_BODY)), Err(ParseError::Family(0x12)));
    assert_eq!(parse(&v2(0x21, 0x41, V4_BODY)), Err(ParseError::Family(0x41)));
    assert_eq!(parse(&v2(0x21, 0x11, &V4_BODY[..11])), Err(ParseError::Length(11)));
    assert_eq!(parse(&v2(0x21, 0x21, &[0; 35])), Err(ParseError::Length(35)));
    assert_eq!(parse(&v2(0x21, 0x31, &[0; 215])), Err(ParseError::Length(215)));
    assert_eq!(parse(&v2(0x21, 0x11, &[0; 5000])[..16]), Err(ParseError::Length(5000)));
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    let v1 = (any::<Ipv4Addr>(), any::<Ipv4Addr>(), any::<u16>(), any::<u16>())
        .prop_map(|(from, to, a, b)| format!("PROXY TCP4 {from} {to} {a} {b}\r\n").into_bytes());
    let body = proptest::collection::vec(any::<u8>(), 0..300);
    let family = prop::sample::select(vec![0x00, 0x11, 0x21, 0x31, 0x12]);
    let v2 = (0x20_u8..0x22, family, body).prop_map(|(command, family, body)| v2(command, family, &body));
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    prop_oneof![v1, v2, noise]
}

proptest! {
    /// Fed byte by byte, the verdict comes once and is that of the whole; what follows changes nothing.
    #[test]
    fn byte_by_byte_equals_whole(bytes in header(), after in proptest::collection::vec(any::<u8>(), 0..20)) {
        let whole = parse(&[bytes.clone(), after].concat());
        let first = (0..=bytes.len()).map(|end| parse(&bytes[..end])).find(|verdict| *verdict != Ok(None));
        if let Some(first) = first {
            prop_assert_eq!(first, whole);
        }
    }

    #[test]
    fn what_is_written_is_read(from in any::<(u32, u16)>(), to in any::<(u32, u16)>()) {
        let (source, target) = (Ipv4Addr::from_bits(from.0), Ipv4Addr::from_bits(to.0));
        let expected = client(source, from.1);
        let line = format!("PROXY TCP4 {source} {target} {} {}\r\n", from.1, to.1);
        prop_assert_eq!(parse(line.as_bytes()), Ok(Some((expected, line.len()))));
        let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        let body = [source.octets().as_slice(), &target.octets(), &ports].concat();
        let bytes = v2(0x21, 0x11, &body);
        prop_assert_eq!(parse(&bytes), Ok(Some((expected, bytes.len()))));
    }

    #[test]
    fn what_we_write_for_a_client_is_read(from in any::<SocketAddr>(), to in any::<SocketAddr>()) {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (from, to) = (plain(from), plain(to));
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let bytes = super::header(version, Some(from), Some(to));
            let expected = match from.is_ipv4() == to.is_ipv4() {
                true => Header::Client(from),
                false => Header::Own,
            };
            prop_assert_eq!(parse(&bytes), Ok(Some((expected, bytes.len()))));
            let own = super::header(version, None, Some(to));
            prop_assert_eq!(parse(&own), Ok(Some((Header::Own, own.len()))));
        }
    }
}
