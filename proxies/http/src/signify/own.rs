//! The page that people are shown where an operator has written none: what happened, whose it is to mend, and what to
//! quote to them. It stands for itself: it asks for nothing else, and fits a phone, a dark room and a screen reader.

use super::template::{Context, put_escaped};
use crate::reply::Form;

/// The colours are those that the reader's own system has for text, light or dark.
const HEAD: &str = r#"<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<style>
html { color: CanvasText; background: Canvas }
body { max-width: 36rem; margin: 12vh auto; padding: 0 1.25rem; font: 1.0625rem/1.6 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.25 }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 1rem; margin-top: 2.5rem; font-size: 0.875rem }
dd { margin: 0; font-family: ui-monospace, monospace }
</style>"#;

/// The whole page.
pub fn page(context: &Context<'_>) -> String {
    let Context { status, reason, code, title, .. } = context;
    let message = escaped(&sentence(context.message));
    let whose = whose(context);
    let again = again(context.retry_after_s);
    let id = match context.request_id {
        "" => String::new(),
        id => format!("<dt>Request</dt><dd>{}</dd>\n", escaped(id)),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<title>{title}</title>\n{HEAD}\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p>{message}</p>\n<p>{whose}{again}</p>\n\
         <dl>\n<dt>Status</dt><dd>{status} {reason}</dd>\n<dt>Code</dt><dd>{code}</dd>\n{id}</dl>\n\
         </main>\n</body>\n</html>\n"
    )
}

/// With a capital at its beginning and a full stop at its end.
fn sentence(message: &str) -> String {
    let mut rest = message.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(rest).chain(['.']).collect()
}

fn whose(context: &Context<'_>) -> &'static str {
    match (context.code, context.owner) {
        ("H80", _) => "Those who run the app have closed it for a while.",
        (_, "client") => "The request has to change.",
        (_, "app") => "This is the app's to mend.",
        (_, _) => "This is for those who run the proxy.",
    }
}

/// When to come back, where that is known.
fn again(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0 => return String::new(),
        1..120 => (seconds, "second"),
        120..7200 => (seconds.div_ceil(60), "minute"),
        _ => (seconds.div_ceil(3600), "hour"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!(" Try again in {count} {unit}{plural}.")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    put_escaped(text, Form::Html, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(context: &Context<'_>) -> String {
        page(&Context { code: "H12", title: "Request timeout", owner: "app", ..*context })
    }

    #[test]
    fn messages_are_sentences_and_what_a_client_sent_is_text() {
        let text = shown(&Context { message: "no app answers for \"<b>\"", ..Context::default() });
        assert!(text.contains("<p>No app answers for &quot;&lt;b&gt;&quot;.</p>"), "{text}");
        assert!(text.contains("<p>This is the app's to mend.</p>"), "{text}");
        assert!(!text.contains("<dt>Request</dt>"), "there is none: {text}");
        let text = shown(&Context { request_id: "<i>", ..Context::default() });
        assert!(text.contains("<dt>Request</dt><dd>&lt;i&gt;</dd>"), "{text}");
    }

    #[test]
    fn who_has_closed_an_app_is_told_apart_from_who_has_to_mend_it() {
        let closed = Context { code: "H80", owner: "app", retry_after_s: 120, ..Context::default() };
        assert!(page(&closed).contains("have closed it for a while. Try again in 2 minutes."));
    }

    #[test]
    fn the_time_to_wait_is_never_told_too_short() {
        for (seconds, want) in [
            (0, ""),
            (1, " Try again in 1 second."),
            (119, " Try again in 119 seconds."),
            (121, " Try again in 3 minutes."),
            (7200, " Try again in 2 hours."),
            (7201, " Try again in 3 hours."),
        ] {
            assert_eq!(again(seconds), want);
        }
    }
}
