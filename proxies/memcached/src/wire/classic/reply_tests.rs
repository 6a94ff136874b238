use super::*;
use proptest::prelude::*;

proptest! {
    /// What is written for clients is what a client reads.
    #[test]
    fn values_come_back(
        key in "[!-~]{1,250}",
        flags in any::<u32>(),
        cas in prop::option::of(any::<u64>()),
        value in prop::collection::vec(any::<u8>(), 0..20_000),
    ) {
        let flags = flags.to_string();
        let value = Bytes::from(value);
        let mut out = Output::new();
        write_value(&mut out, key.as_bytes(), flags.as_bytes(), cas, &value);
        out.extend_from_slice(b"END\r\n");
        let (mut input, mut frames) = (BytesMut::new(), Vec::new());
        while !out.is_empty() {
            // In small pieces.
            let piece = out.front().len().min(777);
            input.extend_from_slice(&out.front()[..piece]);
            out.advance(piece);
            while let Some(frame) = decode(&mut input, &Limits::default()).unwrap() {
                frames.push(frame);
            }
        }
        let cas = cas.map(|cas| format!(" {cas}")).unwrap_or_default();
        let line = Bytes::from(format!("VALUE {key} {flags} {}{cas}", value.len()));
        prop_assert_eq!(frames, [Frame::Value { line, value }, Frame::Line(Bytes::from_static(b"END"))]);
    }
}

fn mostly(usual: &'static str, other: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![6 => usual, 1 => other]
}

proptest! {
    /// The quick look at a line sees what the thorough one does, or nothing; and it sees most.
    #[test]
    fn a_quick_look_sees_the_same(
        key in "[a-c]{1,3}",
        other in prop::option::weighted(0.2, "[a-c]{1,3}"),
        flags in mostly("[0-9]{1,10}", "( |[0-9]{11}|x|)"),
        length in mostly("[0-9]{1,10}", "([0-9]{11}|-1|)"),
        end in mostly("\r\n", "( 7\r\n|\n|\r| )"),
        rest in "[a-z]{0,30}",
    ) {
        let asked = other.as_ref().unwrap_or(&key);
        let text = format!("VALUE {key} {flags} {length}{end}{rest}");
        let thorough = match head(text.as_bytes()) {
            Ok(Head::Item { len, key_len, value_len }) => {
                prop_assert_eq!(key_len, key.len());
                Some((len, value_len)).filter(|_| *asked == key && end == "\r\n")
            }
            Ok(Head::Partial | Head::Last { .. }) | Err(_) => None,
        };
        prop_assert_eq!(head_of(text.as_bytes(), asked.as_bytes()), thorough);
    }
}

#[test]
fn values_that_lie_about_their_length() {
    for text in ["VALUE a 0 2\r\nabcd", "VALUE a 0 x\r\n", "VALUE a\r\n", "VALUE a 0 99999999\r\n"] {
        assert_eq!(
            decode(&mut BytesMut::from(text), &Limits::default()),
            Err(DecodeError::BadValue),
            "{text}"
        );
    }
}
