//! Who asks, and whether this app is open to them: between a head that was read and one that is sent.

use super::driver::Session;
use crate::error::Error;
use crate::identity::client::forwarded_for;
use crate::identity::{IpText, client, trace};
use crate::table::{App, Table, Target};
use crate::wire::{Edits, Hop, Name, RequestHead, render};
use bytes::BytesMut;
use groove_common::ids::Address;
use groove_common::net::{Peer, Transport};
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

impl Session {
    /// The client behind a trusted peer, as the peer tells: by X-Forwarded-For, or by Forwarded where there is none.
    pub(super) fn client_behind(&self, table: &Table, head: &RequestHead<'_>) -> Option<IpAddr> {
        let peer = self.conn.peer.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical();
        let values = |known| head.fields.iter().rev().filter(move |field| field.known == known);
        let mut hops: SmallVec<[&[u8]; 8]> = values(Name::XForwardedFor)
            .flat_map(|field| field.value.of(head.raw).rsplit(|byte| *byte == b','))
            .collect();
        if hops.is_empty() {
            let elements = values(Name::Forwarded);
            hops = elements
                .flat_map(|field| forwarded_for(field.value.of(head.raw)).into_iter().rev())
                .collect();
        }
        let found = client(peer, hops.into_iter(), |ip| table.trusts_address(ip));
        (found != peer).then_some(found)
    }

    /// The client's end of its connection and ours, as servers are told by a PROXY header. A client behind trusted
    /// proxies has no port that is known.
    pub(super) fn ends(&self, behind: Option<IpAddr>) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let client = match (behind, self.conn.peer) {
            (Some(ip), _) => Some(SocketAddr::new(ip, 0)),
            (None, Peer::Ip(address)) => Some(address),
            (None, Peer::Unix) => None,
        };
        (client, self.conn.stream.local_address())
    }

    /// Whether the app is open to this client, on this connection.
    pub(super) fn admit_to(&self, app: &App, target: &Target, client: Option<IpAddr>) -> Result<(), Error> {
        if let Some(closed) = &target.maintenance
            && !closed.admits(client.or_else(|| self.conn.peer.ip().map(|ip| ip.to_canonical())))
        {
            return Err(Error::Maintenance(closed.retry_after_s));
        }
        let tls = self.conn.tls.as_deref();
        if let Some(wanted) = target.client_authority() {
            return match tls {
                // Another connection could do it: this one was made under another name, or none.
                Some(tls) if tls.authority.as_ref() != Some(wanted) => {
                    Err(Error::Misdirected(tls.sni.clone().unwrap_or_default()))
                }
                None if wanted.is_required() => {
                    let reason = "a client certificate is asked for, and this is no TLS";
                    Err(Error::Forbidden { way: "client_tls", reason })
                }
                Some(_) | None => Ok(()),
            };
        }
        // A certificate was shown to be let in to the app that the handshake named (RFC 9110, 7.4).
        if let Some(tls) = tls
            && tls.asks_client
            && let Some(sni) = &tls.sni
            && self.worker.seat(sni.as_bytes()).is_some_and(|named| !std::ptr::eq(&raw const *named.app, app))
        {
            return Err(Error::Misdirected(sni.clone()));
        }
        Ok(())
    }

    /// Writes the head that the server gets.
    pub(super) fn write_head(
        &self,
        table: &Table,
        head: &RequestHead<'_>,
        request_id: &[u8],
        (peer, trusted, behind): (&IpText, bool, Option<&IpText>),
        edits: &Edits,
        out: &mut BytesMut,
    ) {
        let says = &table.says;
        let traced = table.tracing.as_ref().and_then(|tracing| {
            let mut parents = head.fields.iter().filter(|field| field.known == Name::TraceParent);
            let first = parents.next().filter(|_| trusted || tracing.believe_all);
            let given = first.filter(|_| parents.next().is_none()).map(|field| field.value.of(head.raw));
            trace::next(given, tracing, &mut self.worker.dice())
        });
        let hop = Hop {
            says,
            client: peer.bytes(),
            real_ip: behind.unwrap_or(peer).bytes(),
            scheme: self.scheme().as_bytes(),
            port: match &self.conn.listener.bound {
                Address::Tcp { port, .. } if says.x_forwarded_port => *port,
                Address::Tcp { .. } | Address::Unix(_) => 0,
            },
            trusted,
            via: &table.via,
            // Its stream is a pipe, behind which is HTTP/2.
            is_http2: matches!(self.conn.stream.transport(), Transport::Pipe(_)),
            request_id,
            trace: traced.as_ref().map(|traced| traced.parent.as_slice()),
            trace_continues: traced.is_some_and(|traced| traced.continues),
        };
        render::request(head, &hop, edits, out);
    }
}
