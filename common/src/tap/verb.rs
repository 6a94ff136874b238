//! What a running proxy tells of what goes through it, on a terminal as a page that renews itself if a summary is asked
//! for, else line by line.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::Client;
use crate::app::StartError;

/// Takes the cursor home and clears what is below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// A part of everything, above 0 and up to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let share = match (text.strip_suffix('%'), text.split_once('/')) {
            (Some(percent), _) => number(percent).map(|percent| percent / 100.0),
            (None, Some((part, whole))) => number(part).zip(number(whole)).map(|(part, whole)| part / whole),
            (None, None) => number(text),
        };
        match share {
            Some(share) if share > 0.0 && share <= 1.0 => Ok(Self(share)),
            Some(_) | None => {
                Err("a share is written `5%`, `1/20` or `0.05`, and is 100% at most".to_owned())
            }
        }
    }
}

/// As people read it.
impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(share) = self;
        match *share > 0.0 && *share < 0.01 {
            true => write!(f, "{:.2}%", share * 100.0),
            false => write!(f, "{:.0}%", share * 100.0),
        }
    }
}

/// Shows lines until the proxy has no more to tell, or nobody reads any more. `told` makes one readable; with `pages`
/// each takes the place of the one before.
///
/// # Errors
///
/// When nobody answers, or the answer is no.
pub async fn show<L: DeserializeOwned>(
    admin: &Client,
    wish: &Value,
    pages: bool,
    told: impl Fn(&L) -> String,
) -> Result<(), StartError> {
    let mut lines = admin.follow("/api/v1/tap", wish).await?;
    let (mut out, mut pending) = (io::stdout(), Vec::new());
    let clear = if pages && out.is_terminal() { CLEAR } else { "" };
    while let Some(line) = lines.next().await? {
        pending.clear();
        if admin.json {
            pending.extend_from_slice(&line);
            pending.push(b'\n');
        } else {
            writeln!(pending, "{clear}{}", told(&serde_json::from_slice(&line)?))?;
        }
        match out.write_all(&pending).and_then(|()| out.flush()) {
            // `tap | head`: the reader has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_written_in_three_ways() {
        for text in ["5%", "1/20", "0.05"] {
            assert_eq!(text.parse(), Ok(Share(0.05)), "{text}");
        }
        for text in ["0", "0%", "101%", "2", "1/0", "", "x%", "-1%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        assert_eq!([0.5, 0.001].map(|share| Share(share).to_string()), ["50%", "0.10%"]);
    }
}
