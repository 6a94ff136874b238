//! What servers are told of who asks.

use harness::{App, Kind, Proxy, http};

use super::request;

struct Asked {
    proxy: Proxy,
    app: App,
}

impl Asked {
    fn of(top: &str) -> Self {
        let app = App::saying("ok").unwrap();
        let config = format!("log: {{access: {{sample: 1}}}}\n{top}{}", super::ONE_APP);
        let proxy = Proxy::of(Kind::Http).config(&config).set("APP", app.address()).start().unwrap();
        Self { proxy, app }
    }

    /// What the app saw of a request with these headers.
    fn seen(&self, headers: &[(&'static str, &str)]) -> impl Fn(&str) -> String + use<> {
        let mut asked = request("shop.test", "/");
        for (name, value) in headers {
            asked.headers_mut().append(*name, value.parse().unwrap());
        }
        http::send(self.proxy.address(), asked).unwrap();
        let last = self.app.received().pop().unwrap();
        move |name| {
            let values: Vec<_> = last.headers().get_all(name).iter().map(|it| it.to_str().unwrap()).collect();
            values.join(" | ")
        }
    }
}

#[test]
fn forwarded_is_appended_for_trusted_peers_and_begun_for_others() {
    let on = "{forwarded: address, x_real_ip: true, x_forwarded_port: true}";
    let strange = Asked::of(&format!("forwarded: {on}\n"));
    let seen = strange.seen(&[
        ("forwarded", "for=6.6.6.6"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
    ]);
    assert_eq!(seen("forwarded"), "for=127.0.0.1;host=\"shop.test\";proto=http");
    assert_eq!((seen("x-forwarded-for"), seen("x-real-ip")), ("127.0.0.1".into(), "127.0.0.1".into()));
    assert_eq!(seen("x-forwarded-port"), strange.proxy.address().port().to_string());

    let known = Asked::of(&format!("trusted: [127.0.0.0/8, 10.0.0.0/8]\nforwarded: {on}\n"));
    let seen = known.seen(&[("forwarded", "for=\"[2001:db8::1]\";by=_x"), ("forwarded", "for=10.0.0.9")]);
    assert_eq!(
        seen("forwarded"),
        "for=\"[2001:db8::1]\";by=_x, for=10.0.0.9, for=127.0.0.1;host=\"shop.test\";proto=http"
    );
    assert_eq!(seen("x-real-ip"), "2001:db8::1", "the right-most that is not trusted");
    let line = known.proxy.log().expect("\"client\":\"2001:db8::1\"").unwrap();
    assert!(line.contains("\"peer\":\"127.0.0.1:"), "{line}");
    // X-Forwarded-For is asked first; what the client wrote itself stands further left.
    let seen = known.seen(&[("x-forwarded-for", "6.6.6.6, 203.0.113.9"), ("x-forwarded-for", "10.0.0.9")]);
    assert_eq!(
        (seen("x-real-ip"), seen("x-forwarded-for")),
        ("203.0.113.9".into(), "6.6.6.6, 203.0.113.9, 10.0.0.9, 127.0.0.1".into())
    );
}

#[test]
fn each_field_has_its_switch() {
    let off = "{x_forwarded_for: false, x_forwarded_proto: false, x_forwarded_host: false, request_id: false, forwarded: hidden}";
    let asked = Asked::of(&format!("forwarded: {off}\nvia: null\n"));
    let seen = asked.seen(&[("x-forwarded-for", "6.6.6.6"), ("x-request-id", "mine")]);
    for name in
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "via", "x-real-ip"]
    {
        assert_eq!(seen(name), "", "{name}");
    }
    let (one, two) = (seen("forwarded"), asked.seen(&[])("forwarded"));
    assert!(one.starts_with("for=_") && one.ends_with(";host=\"shop.test\";proto=http"), "{one}");
    assert_ne!(one, two, "nobody is told apart by it");
}

#[test]
fn traces_are_continued_where_they_are_believed_and_begun_elsewhere() {
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("traceparent", given), ("tracestate", "a=b")];
    let seen = Asked::of("").seen(&headers);
    assert_eq!((seen("traceparent"), seen("tracestate")), (given.into(), "a=b".into()), "as it comes");

    let strange = Asked::of("forwarded: {trace: {sample: 0}}\n");
    let seen = strange.seen(&headers);
    assert!(
        seen("traceparent").len() == 55 && seen("traceparent")[..36] != given[..36],
        "{}",
        seen("traceparent")
    );
    assert!(seen("traceparent").ends_with("-00") && seen("tracestate").is_empty());

    let known = Asked::of("trusted: [127.0.0.0/8]\nforwarded: {trace: {start: false}}\n");
    let seen = known.seen(&headers);
    assert!(seen("traceparent").starts_with(&given[..36]) && seen("traceparent") != given);
    assert!(seen("traceparent").ends_with("-01"));
    assert_eq!(seen("tracestate"), "a=b");
    known.proxy.log().expect("\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"").unwrap();
    // Nonsense, or two of them, is no trace.
    for bad in
        [vec![("traceparent", "00-zz"), ("tracestate", "a=b")], [headers.as_slice(), &headers].concat()]
    {
        let seen = known.seen(&bad);
        assert_eq!((seen("traceparent"), seen("tracestate")), (String::new(), String::new()));
    }
    let everybody = Asked::of("forwarded: {trace: {believe: all}}\n");
    assert!(everybody.seen(&headers)("traceparent").starts_with(&given[..36]));
}
