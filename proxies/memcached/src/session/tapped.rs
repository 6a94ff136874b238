//! Requests of sessions while somebody watches the tap.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Context;

use super::exchange::{Asked, Exchange};
use crate::tap::{Asker, Server};
use crate::tenant::guest::Guest;
use crate::upstream::view::View;
use crate::wire::meta::Request;

impl Exchange<'_> {
    /// Asks the server of a key as ever, and notes it if somebody wants to see it.
    #[cold]
    pub(super) fn key_tapped(
        &self,
        guest: Option<&Guest>,
        request: &Request<'_>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Asked {
        let tap = &self.worker.tap;
        let name = guest.map(Guest::name);
        let begun = tap.begin(request, self.now, || Asker {
            tenant: name.as_deref(),
            cluster: view.cluster_name(request.key),
        });
        let Some(mut begun) = begun else { return self.key_of_any(guest, request, view, cx) };
        let noted = Cell::new(None);
        let exchange = Exchange { noted: Some(&noted), ..*self };
        let asked = exchange.key_of_any(guest, request, view, cx);
        begun.set_server(noted.take());
        match &asked {
            Asked::Waiting => tap.wait(Rc::as_ptr(self.mailbox).addr(), self.ticket, begun),
            Asked::Answered(answer) => tap.tell(begun, answer),
            Asked::Together(_) | Asked::Busy | Asked::InLine => (),
        }
        asked
    }

    /// Notes who is asked, if somebody wants to see it.
    pub(super) fn note(&self, server: impl FnOnce() -> Server) {
        if let Some(noted) = self.noted {
            noted.set(Some(server()));
        }
    }
}
