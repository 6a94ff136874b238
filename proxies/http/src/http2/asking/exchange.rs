//! One request: a session's pipe on one side, its stream on the other.

use super::super::head::{self, Asking};
use super::super::reading::{BodyReading, LIMITS, Part};
use super::super::{receive, send};
use crate::wire::scan::HeadScan;
use crate::wire::{Fields, RequestHead};
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Response;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};

/// Carries what a session asks, and what it is answered. A pipe that closes without a reply is what a session knows as a
/// server that hung up.
pub(super) async fn run(requests: SendRequest<Bytes>, pipe: DuplexStream, scheme: &'static str) {
    let (from_session, to_session) = split(pipe);
    if let Err(error) = carry(requests, from_session, to_session, scheme).await {
        tracing::debug!(%error, "a stream to a server failed");
    }
}

async fn carry(
    requests: SendRequest<Bytes>,
    mut from_session: ReadHalf<DuplexStream>,
    mut to_session: WriteHalf<DuplexStream>,
    scheme: &'static str,
) -> io::Result<()> {
    let mut inbox = BytesMut::new();
    let mut requests = requests.ready().await.map_err(io::Error::other)?;
    let speaks_websockets = requests.is_extended_connect_protocol_enabled();
    let asking = read_head(&mut from_session, &mut inbox, scheme, speaks_websockets).await?;
    let Asking { request, to_head, framing, accept } = asking;
    let mut body = if accept.is_some() { BodyReading::Switched } else { BodyReading::new(framing) };
    let first = body.next(&mut inbox).map_err(io::Error::other)?;
    let is_whole = matches!(first, Some(Part::End));
    let (response, stream) = requests.send_request(request, is_whole).map_err(io::Error::other)?;
    let upload = upload(from_session, inbox, body, first.filter(|_| !is_whole), stream);
    let download = async {
        let response = await_head(response, &mut to_session).await?;
        reply(response, to_head, accept.as_deref(), &mut to_session).await
    };
    match select(pin!(download), pin!(upload)).await {
        Either::Left((answered, _)) => answered,
        // The session has left: dropping the stream resets it.
        Either::Right((left, _)) => left,
    }
}

/// The request as the session has written it.
async fn read_head(
    pipe: &mut ReadHalf<DuplexStream>,
    inbox: &mut BytesMut,
    scheme: &'static str,
    speaks_websockets: bool,
) -> io::Result<Asking> {
    let mut scan = HeadScan::default();
    let length = loop {
        if let Some(length) = scan.advance(inbox, &LIMITS).map_err(io::Error::other)? {
            break length;
        }
        if pipe.read_buf(inbox).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let raw = inbox.split_to(length);
    let mut fields = Fields::default();
    let head = RequestHead::parse(&raw, &LIMITS, &mut fields).map_err(io::Error::other)?;
    head::request(&head, scheme, speaks_websockets).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Carries the request's body, and then watches for the session's leaving: it returns with nothing else.
async fn upload(
    mut pipe: ReadHalf<DuplexStream>,
    mut inbox: BytesMut,
    mut body: BodyReading,
    mut first: Option<Part>,
    mut stream: SendStream<Bytes>,
) -> io::Result<()> {
    let is_tunnel = matches!(body, BodyReading::Switched);
    while !body.is_done() || first.is_some() {
        let next = match first.take() {
            None => body.next(&mut inbox).map_err(io::Error::other)?,
            first => first,
        };
        let sent = match next {
            Some(Part::Data(data)) => send(&mut stream, data).await,
            Some(Part::Trailers(fields)) => stream.send_trailers(fields),
            Some(Part::End) => stream.send_data(Bytes::new(), true),
            None if pipe.read_buf(&mut inbox).await? > 0 => Ok(()),
            // A tunnel's client has said all; any other has left.
            None if body.closed() => stream.send_data(Bytes::new(), true),
            None => return Ok(()),
        };
        if sent.is_err() {
            // The server wants no more. It may have answered all the same.
            break;
        }
    }
    if is_tunnel && body.is_done() {
        return std::future::pending().await;
    }
    while pipe.read_buf(&mut inbox).await? > 0 {
        inbox.clear();
    }
    Ok(())
}

/// The reply's head, after the interim ones have gone.
async fn await_head(
    response: ResponseFuture,
    pipe: &mut WriteHalf<DuplexStream>,
) -> io::Result<Response<RecvStream>> {
    let mut response = pin!(response);
    loop {
        let next = poll_fn(|cx| match response.as_mut().get_mut().poll_informational(cx) {
            Poll::Ready(Some(interim)) => Poll::Ready(interim.map(Either::Left)),
            Poll::Ready(None) | Poll::Pending => response.as_mut().poll(cx).map_ok(Either::Right),
        });
        match next.await.map_err(io::Error::other)? {
            Either::Left(interim) => {
                let mut out = BytesMut::new();
                head::put_interim(&interim, &mut out);
                pipe.write_all_buf(&mut out).await?;
            }
            Either::Right(response) => return Ok(response),
        }
    }
}

async fn reply(
    response: Response<RecvStream>,
    to_head: bool,
    accept: Option<&[u8]>,
    pipe: &mut WriteHalf<DuplexStream>,
) -> io::Result<()> {
    let (parts, mut body) = response.into_parts();
    let mut out = BytesMut::new();
    if let Some(accept) = accept.filter(|_| parts.status.is_success()) {
        head::put_switched(&parts, accept, &mut out);
        pipe.write_all_buf(&mut out).await?;
        receive(&mut body, pipe, false).await?;
        return pipe.shutdown().await;
    }
    let in_chunks = head::put_reply(&parts, to_head, body.is_end_stream(), &mut out);
    pipe.write_all_buf(&mut out).await?;
    receive(&mut body, pipe, in_chunks).await
}
