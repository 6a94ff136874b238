//! What the proxy itself answers for an app is edited as its servers' replies are: redirects, static answers, pages,
//! refusals. Most apps edit nothing, and pay one look.

use crate::auth::Identity;
use crate::edit::ReplyProgram;
use crate::reply;
use crate::scene::Kept;
use crate::table::{App, Target};
use crate::wire::{Edits, Fields};
use bytes::BytesMut;
use std::borrow::Cow;
use std::rc::Rc;

/// The edits of one answer.
pub(super) struct Local<'v> {
    pub(super) edits: Cow<'v, Edits>,
    pub(super) program: Option<ReplyProgram<'v>>,
}

impl<'v> Local<'v> {
    /// Those of a request, if there are any. `origin` is the page's that asks, `kept` what templates may look at.
    pub(super) fn of(
        (app, target): (&'v App, &'v Target),
        origin: Option<&[u8]>,
        identity: Option<&Identity>,
        kept: impl FnOnce() -> Kept,
    ) -> Option<Box<Self>> {
        let cors = target.action.as_ref().and_then(|action| action.cors.as_ref());
        let edits = cors.map_or(Cow::Borrowed(&target.reply), |cors| cors.edits_for(origin));
        let demands = target.demands.as_deref();
        let programs = demands.and_then(|it| it.programs.as_deref()).filter(|it| it.edit_reply(identity));
        let program = programs.map(|programs| ReplyProgram {
            app: &app.name,
            program: &programs.reply,
            request: kept(),
            stripped: demands.and_then(|it| it.stripped.as_deref()),
            identity: identity.cloned().map(Rc::new),
        });
        (program.is_some() || !edits.is_empty()).then(|| Box::new(Self { edits, program }))
    }

    /// Edits the answer that `out` is.
    pub(super) fn apply(&self, out: &mut BytesMut, fields: &mut Fields) {
        reply::edit(out, &self.edits, self.program.as_ref(), fields);
    }

    /// Edits a failure's page.
    pub(super) fn apply_to_failure(&self, out: &mut BytesMut, fields: &mut Fields) {
        reply::edit_failure(out, &self.edits, self.program.as_ref(), fields);
    }
}
