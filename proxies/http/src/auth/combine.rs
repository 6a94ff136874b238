//! Which of many outcomes counts. Pure.

use super::{Answer, Denial, Denied, Verdict};
use crate::error::Error;

/// What the ways that did not let a request in have said.
#[derive(Debug, Default)]
pub struct Seen {
    worst: Option<(&'static str, Denial)>,
    challenges: Vec<String>,
    instead: Option<Box<Answer>>,
}

impl Seen {
    /// A way said no.
    pub fn denied(&mut self, way: &'static str, denial: Denial) {
        self.challenges.extend(denial.challenge.clone());
        if self.worst.as_ref().is_none_or(|(_, worst)| worst.kind < denial.kind) {
            self.worst = Some((way, denial));
        }
    }

    /// A way has an answer of its own; the first one's counts.
    pub fn instead(&mut self, answer: Box<Answer>) {
        self.instead.get_or_insert(answer);
    }

    /// Nobody said no.
    pub fn is_clean(&self) -> bool {
        self.worst.is_none() && self.instead.is_none()
    }

    /// What it comes to. Who cannot be reached might have said yes, so that is no refusal; who is known and may not is
    /// better told than to show something else; and an answer of a way's own (a login) is for who showed nothing.
    pub fn verdict(self) -> Verdict {
        let Self { worst, challenges, instead } = self;
        let (way, denial) = match (worst, instead) {
            (None | Some((_, Denial { kind: Denied::Absent, .. })), Some(answer)) => {
                return Verdict::Answered(answer);
            }
            (Some(worst), _) => worst,
            (None, None) => {
                ("auth", Denial { kind: Denied::Absent, reason: "nobody was asked", challenge: None })
            }
        };
        let reason = denial.reason;
        Verdict::Denied(match denial.kind {
            Denied::Absent | Denied::Wrong => Error::Unauthenticated { way, reason, challenges },
            Denied::Forbidden => Error::Forbidden { way, reason },
            Denied::Unreachable => Error::AuthUnreachable { way, reason },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(kind: Denied, challenge: Option<&str>) -> Denial {
        Denial { kind, reason: "r", challenge: challenge.map(str::to_owned) }
    }

    fn status(denials: &[Denied], instead: bool) -> u16 {
        let mut seen = Seen::default();
        denials.iter().for_each(|kind| seen.denied("w", denial(*kind, None)));
        if instead {
            seen.instead(Box::new(Answer { status: 302, ..Answer::default() }));
        }
        match seen.verdict() {
            Verdict::Denied(error) => error.status(),
            Verdict::Answered(answer) => answer.status,
            Verdict::Admitted(_) => 200,
        }
    }

    #[test]
    fn the_gravest_counts_and_a_login_is_for_who_showed_nothing() {
        use Denied::{Absent, Forbidden, Unreachable, Wrong};
        for (denials, instead, want) in [
            (&[Absent, Absent][..], false, 401),
            (&[Wrong, Absent], false, 401),
            (&[Wrong, Forbidden, Absent], false, 403),
            (&[Unreachable, Forbidden], false, 503),
            (&[Absent], true, 302),
            (&[], true, 302),
            (&[Absent, Wrong], true, 401),
            (&[Forbidden], true, 403),
            (&[], false, 401),
        ] {
            assert_eq!(status(denials, instead), want, "{denials:?} {instead}");
        }
    }

    #[test]
    fn every_way_may_say_how_it_wants_to_be_shown_who_is_there() {
        let mut seen = Seen::default();
        seen.denied("a", denial(Denied::Absent, Some("Basic")));
        seen.denied("b", denial(Denied::Wrong, Some("Bearer")));
        let Verdict::Denied(Error::Unauthenticated { way, challenges, .. }) = seen.verdict() else {
            panic!("a denial");
        };
        assert_eq!((way, challenges), ("b", vec!["Basic".to_owned(), "Bearer".to_owned()]));
    }
}
