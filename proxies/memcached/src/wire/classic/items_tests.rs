use proptest::prelude::*;

use super::*;

fn keys(of: &[&str]) -> Keys {
    let mut keys = Keys::default();
    of.iter().for_each(|key| keys.push(key.as_bytes()));
    keys
}

/// The answer in `text`, that comes in pieces of `step`, and how much is left.
fn decode(text: &[u8], asked: &Keys, limits: &Limits, step: usize) -> Result<Option<Answer>, DecodeError> {
    let (mut decoder, mut input, mut come_len) = (Decoder::default(), BytesMut::new(), 0);
    for piece in text.chunks(step) {
        input.extend_from_slice(piece);
        come_len += piece.len();
        if let Some(answer) = decoder.decode(&mut input, asked, limits)? {
            assert!(text[..come_len].ends_with(&input) && input.len() < step);
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

fn items(text: &[u8], asked: &Keys, limits: &Limits, step: usize) -> Items {
    match decode(text, asked, limits, step) {
        Ok(Some(Answer::Items(items))) => items,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_line_asks_for_all() {
    let mut out = Output::new();
    keys(&["a", "bc", "d"]).encode(&mut out);
    assert_eq!(out.front(), b"get a bc d\r\n");
}

#[test]
fn keys_are_found_in_the_order_of_asking_and_others_are_not_there() {
    let asked = keys(&["a", "b", "c", "b", "d"]);
    let text = b"VALUE a 7 1\r\nx\r\nVALUE b 0 2\r\n\r\n\r\nVALUE b 0 2\r\n\r\n\r\nEND\r\n";
    for step in 1..text.len() {
        let items = items(text, &asked, &Limits::default(), step);
        let told: Vec<_> = (0..5).map(|number| items.of(number)).collect();
        let b = Some(&b"VALUE b 0 2\r\n\r\n\r\n"[..]);
        assert_eq!(told, [Some(&b"VALUE a 7 1\r\nx\r\n"[..]), b, None, b, None]);
        assert_eq!((items.value_len_max, items.is_short), (2, false));
    }
    let nothing = items(b"END\r\n", &asked, &Limits::default(), 5);
    assert!(nothing.is_empty() && (0..6).all(|number| nothing.of(number).is_none()));
}

#[test]
fn what_was_not_asked_for_is_found_out() {
    for text in [&b"VALUE x 0 1\r\nx\r\nEND\r\n"[..], b"VALUE b 0 1\r\nx\r\nVALUE a 0 1\r\nx\r\nEND\r\n"] {
        assert_eq!(decode(text, &keys(&["a", "b"]), &Limits::default(), 9), Err(DecodeError::OtherKey));
    }
    for text in [
        &b"VALUE a\r\n"[..],
        b"VALUE a 0 x\r\n",
        b"VALUE a 0 \r\n",
        b"VALUE a 0 1 2 3\r\n",
        b"VALUE a 0 1\r\nxy\r\n",
        b"VALUE a 0 99999999999\r\n",
    ] {
        assert_eq!(
            decode(text, &keys(&["a"]), &Limits::default(), 9),
            Err(DecodeError::BadValue),
            "{text:?}"
        );
    }
}

#[test]
fn an_error_takes_the_place_of_everything() {
    let text = b"VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory\r\n";
    let answer = decode(text, &keys(&["a", "b"]), &Limits::default(), 9).unwrap().unwrap();
    assert_eq!(answer, Answer::Refused(Bytes::from_static(b"SERVER_ERROR out of memory")));
}

#[test]
fn a_value_over_the_limit_is_thrown_away_and_the_others_are_kept() {
    let limits = Limits { value_len_max: 3, ..Limits::default() };
    let text = b"VALUE a 0 1\r\nx\r\nVALUE b 0 5\r\nEND\r\n\r\nVALUE c 0 3\r\nxyz\r\nEND\r\n";
    for step in 1..text.len() {
        let items = items(text, &keys(&["a", "b", "c"]), &limits, step);
        assert_eq!(items.of(0), Some(&b"VALUE a 0 1\r\nx\r\n"[..]));
        assert_eq!((items.of(1), items.is_short), (None, true));
        assert_eq!(items.of(2), Some(&b"VALUE c 0 3\r\nxyz\r\n"[..]));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..40) {
        let asked = keys(&["a", "b"]);
        let whole = decode(&text, &asked, &Limits::default(), text.len().max(1));
        if let Ok(Some(whole)) = whole {
            prop_assert_eq!(decode(&text, &asked, &Limits::default(), step), Ok(Some(whole)));
        }
    }

    #[test]
    fn what_a_client_hears_is_what_was_stored(
        values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9000)), 2..9),
        step in 1usize..5000,
        cut_len in 0_usize..5,
    ) {
        let names: Vec<String> = (0..values.len()).map(|number| format!("shop{number}")).collect();
        let asked = keys(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let told = |cut_len: usize| {
            let mut text = Vec::new();
            for (name, value) in names.iter().zip(&values) {
                let (Some(value), name) = (value, &name[cut_len..]) else { continue };
                text.extend(format!("VALUE {name} 3 {}\r\n", value.len()).into_bytes());
                text.extend(value);
                text.extend(b"\r\n");
            }
            text
        };
        let (mut text, wanted) = (told(0), told(cut_len));
        text.extend(b"END\r\n");
        let (items, mut out, mut heard) = (items(&text, &asked, &Limits::default(), step), Output::new(), Vec::new());
        let mut telling = Telling::new(cut_len);
        for (number, value) in values.iter().enumerate() {
            let place = items.place(number);
            prop_assert_eq!(place.is_some(), value.is_some());
            if let Some(place) = place {
                telling.tell(&items, place, &mut out);
            }
        }
        telling.end(&mut out);
        while !out.is_empty() {
            let len = out.front().len();
            heard.extend_from_slice(out.front());
            out.advance(len);
        }
        prop_assert_eq!(heard, wanted);
    }
}
