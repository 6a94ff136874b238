//! What one request has of its own beside what its route gives to all: edits that were worked out for it, those that will be
//! for its reply, and who sends it.

use crate::auth::Identity;
use crate::demands::{Demands, Programs};
use crate::edit::ReplyProgram;
use crate::scene::Kept;
use crate::table::App;
use crate::wire::Edits;
use std::rc::Rc;

/// See the head of this file.
pub(super) struct Own<'v> {
    pub(super) request: Edits,
    pub(super) reply: Option<ReplyProgram<'v>>,
    /// Who sends it, where that was asked.
    pub(super) identity: Option<Rc<Identity>>,
}

impl<'v> Own<'v> {
    /// Works it out for a request.
    pub(super) fn new(
        kept: Kept,
        (app, demands, programs): (&'v App, &'v Demands, &'v Programs),
        identity: Option<Box<Identity>>,
    ) -> Box<Self> {
        let stripped = demands.stripped.as_ref();
        let identity = identity.map(|identity| Rc::new(*identity));
        let scene = kept.scene(&app.name, stripped.map(|it| &**it), identity.as_deref());
        let request = programs.request.of_request(&scene, stripped.cloned());
        let reply = programs.edit_reply(identity.as_deref()).then(|| ReplyProgram {
            app: &app.name,
            program: &programs.reply,
            request: kept,
            stripped: stripped.map(|it| &**it),
            identity: identity.clone(),
        });
        Box::new(Self { request, reply, identity })
    }
}
