//! Statements whose plans are older than what they are made of.
//!
//! A server tells a client that has prepared a statement when a change to its tables changes what it gives. A client that
//! prepares it after the change hears nothing of that from a server of its own; here it may get a connection on which
//! another has prepared it before. So when a client uses a statement for the first time on a connection where it is older
//! than the client's own Parse, its batch is kept until the server has taken it. If it has not, the client does not hear
//! of it: the batch is sent again with the statement parsed anew.

use bytes::{Bytes, BytesMut};

use super::notes::is_noted;
use super::{Backend, Expect, Local, Machine};
use crate::session::prepared::{Moment, StatementId};
use crate::wire::Splice;
use crate::wire::backend::Status;
use crate::wire::frontend::{self, Tag};

/// The longest batch that is kept.
const KEPT_MAX: usize = 16 << 10;

/// A batch with a statement whose plan may be outdated.
#[derive(Debug)]
pub(super) struct Suspect {
    statement: StatementId,
    since: Moment,
    /// From its first use to the Sync, or to a Flush.
    batch: Bytes,
    /// How many answers of the server's there are to that, if all goes well.
    answers: usize,
    /// A description of its parameters, which a server gives before it looks whether the plan is outdated.
    held: Bytes,
    /// It is.
    is_outdated: bool,
}

impl Machine {
    /// Keeps what begins with the use of a statement, if it is all that a transaction of its own runs.
    pub(super) fn suspect(&mut self, statement: StatementId, since: Moment, rest: &[u8]) {
        let runs_nothing = |expect: &Expect| {
            matches!(
                expect,
                Expect::Setup
                    | Expect::Parse(_)
                    | Expect::Close(_)
                    | Expect::Local(Local::ParseComplete { .. })
            )
        };
        let is_first = self.status == Status::Idle && self.expected.iter().all(runs_nothing);
        self.suspect = answers_to_one_use(rest).filter(|_| is_first).map(|answers| {
            let batch = Bytes::copy_from_slice(rest);
            Box::new(Suspect { statement, since, batch, answers, held: Bytes::new(), is_outdated: false })
        });
    }

    /// The server describes the parameters of a statement. Whether that passes; none if more of it must be there first.
    pub(super) fn describes_parameters(&mut self, total: usize, splice: &Splice<'_>) -> Option<bool> {
        if !matches!(self.expected.front(), Some(Expect::Describe)) {
            return Some(!self.hears_alone());
        }
        if total > KEPT_MAX {
            self.suspect = None;
        }
        let Some(suspect) = &mut self.suspect else { return Some(true) };
        suspect.held = Bytes::copy_from_slice(splice.rest().get(..total)?);
        Some(false)
    }

    /// The server has taken it.
    pub(super) fn acquit(&mut self, splice: &mut Splice<'_>, backend: &mut Backend) {
        if let Some(suspect) = &self.suspect
            && matches!(self.expected.front(), Some(Expect::Bind | Expect::Describe))
        {
            backend.parsed.vouch(suspect.statement, suspect.since);
            self.let_go(splice.out());
        }
    }

    /// Whatever becomes of it now is the client's to hear.
    pub(super) fn let_go(&mut self, to_client: &mut BytesMut) {
        if let Some(suspect) = self.suspect.take() {
            to_client.extend_from_slice(&suspect.held);
        }
    }

    /// The server says that a plan is outdated. Whether that is for us alone: then the batch waits to be sent again.
    pub(super) fn convict(&mut self) -> bool {
        let Some(suspect) = &mut self.suspect else { return false };
        // Nothing of it has been answered, and nothing was sent behind it.
        if self.expected.len() != suspect.answers {
            return false;
        }
        suspect.is_outdated = true;
        let undone = self.expected.drain(..).filter(is_noted).count();
        self.queries = self.queries.saturating_sub(undone as u64);
        if let Some(notes) = &mut self.notes {
            notes.unask(undone);
        }
        // What the server says up to its ReadyForQuery is nobody's.
        self.expected.push_back(Expect::Aside { name: Box::default() });
        self.renew();
        true
    }

    /// What is to be taken in once more, before anything that has come since. The server may have to be told that the
    /// first try is over.
    pub fn take_outdated(&mut self, to_server: &mut BytesMut) -> Option<Bytes> {
        let suspect = self.suspect.take_if(|suspect| suspect.is_outdated)?;
        if std::mem::take(&mut self.batch_open) {
            frontend::put_sync(to_server);
        }
        Some(suspect.batch)
    }

    /// A statement's plan is outdated: connections parse what this session has anew from here on. If its client had it
    /// before the change, it has heard so, and a second try is of use.
    pub(super) fn renew(&mut self) {
        self.statements.renew();
        let mut names = std::mem::take(&mut self.names);
        names.renew(|statement| self.statement_of(&statement.content));
        self.names = names;
    }
}

/// If this is one use of a statement, whole and up to its Sync or a Flush, and nothing else: how many answers there are to
/// it.
fn answers_to_one_use(mut rest: &[u8]) -> Option<usize> {
    if rest.len() > KEPT_MAX {
        return None;
    }
    let mut answers = 0;
    while let Ok(Some((tag, total))) = frontend::header(rest) {
        let fits = match tag {
            Tag::Bind => answers == 0,
            Tag::Describe | Tag::Execute => true,
            Tag::Sync => return (rest.len() == total).then_some(answers + 1),
            Tag::Flush => return (rest.len() == total).then_some(answers),
            Tag::Query | Tag::FunctionCall | Tag::Parse | Tag::Close | Tag::Terminate => false,
            Tag::CopyData | Tag::CopyDone | Tag::CopyFail | Tag::Password => false,
        };
        rest = rest.get(total..).filter(|_| fits)?;
        answers += 1;
    }
    None
}

#[cfg(test)]
#[path = "outdated_tests.rs"]
mod tests;
