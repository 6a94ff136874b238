//! One request: its stream on one side, a session's pipe on the other.

use super::super::head::{self, Carriage};
use super::super::reading::{BodyReading, Head, HeadReading, Part};
use super::super::{Bounds, put, receive, send};
use crate::session::driver;
use crate::worker::Worker;
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use groove_common::net::{Origin, Stream};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Serves one request to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    origin: Origin,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    bounds: Bounds,
) {
    let (parts, body) = request.into_parts();
    let mut head = worker.take_buffer();
    let key = websocket_key(&worker.request_id());
    let Ok(carriage) = head::put_request(&parts, body.is_end_stream(), &key, &mut head) else {
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    };
    let inbox = worker.take_buffer();
    let (near, far) = duplex(bounds.buffer_bytes);
    // A session that waits for its turn does not read.
    let gone = CancellationToken::new();
    let session = driver::serve_stream(worker, origin.carrying(Stream::piped(far, gone.clone())), head);
    let (from_session, to_session) = split(near);
    let (switched, is_switched) = oneshot::channel();
    let upload = upload(to_session, body, carriage, is_switched);
    let download = Download {
        pipe: from_session,
        inbox,
        to_head: parts.method == Method::HEAD,
        respond,
        switched: Some(switched),
    };
    let exchange = async {
        let (upload, download) = (pin!(upload), pin!(download.run()));
        match select(download, upload).await {
            // Or the client has given up: the session sees its pipe closed.
            Either::Left(_) | Either::Right((Err(_), _)) => {}
            Either::Right((Ok(_open), download)) => download.await,
        }
        gone.cancel();
    };
    // The session outlives the exchange by what it still has to do: it counts, logs, and keeps the server's connection.
    tokio::join!(session, exchange);
}

/// Sixteen bytes in base64 (RFC 6455, 4.1), of as many digits as fit.
fn websocket_key(digits: &[u8; 32]) -> [u8; 24] {
    let mut key = *b"AAAAAAAAAAAAAAAAAAAAAA==";
    key.iter_mut().zip(digits).take(21).for_each(|(to, digit)| *to = *digit);
    key
}

/// Writes what follows the head into the pipe, and leaves that open: a client that has said all still wants its reply.
async fn upload(
    mut pipe: WriteHalf<DuplexStream>,
    mut body: RecvStream,
    carriage: Carriage,
    is_switched: oneshot::Receiver<()>,
) -> io::Result<WriteHalf<DuplexStream>> {
    match carriage {
        Carriage::None => {}
        Carriage::Plain | Carriage::Chunks => {
            receive(&mut body, &mut pipe, carriage == Carriage::Chunks).await?;
        }
        // Until the server agrees, what comes are bytes of nothing. It may refuse; then nobody wants them.
        Carriage::Tunnel if is_switched.await.is_ok() => {
            while let Some(data) = body.data().await {
                let data = data.map_err(io::Error::other)?;
                put(&mut pipe, &data, false).await?;
                body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
            }
            pipe.shutdown().await?;
        }
        Carriage::Tunnel => {}
    }
    Ok(pipe)
}

/// The reply on its way to the client.
struct Download {
    pipe: ReadHalf<DuplexStream>,
    inbox: BytesMut,
    to_head: bool,
    respond: SendResponse<Bytes>,
    /// Told once the session speaks another protocol.
    switched: Option<oneshot::Sender<()>>,
}

impl Download {
    /// Carries the reply. A client that still sends its body when all is said is told to stop once its stream is dropped
    /// (RFC 9113, 8.1): what is on its way to it goes first. A session that ends in the midst has the stream reset: the
    /// client must not take what it has for all there is.
    async fn run(mut self) {
        let Some((response, mut body)) = self.head().await else {
            return self.respond.send_reset(Reason::INTERNAL_ERROR);
        };
        if matches!(body, BodyReading::Switched)
            && let Some(switched) = self.switched.take()
        {
            // A client that is gone is seen by the upload.
            let _ = switched.send(());
        }
        // An empty body ends with the head.
        let mut next = body.next(&mut self.inbox).ok().flatten();
        let is_whole = matches!(next, Some(Part::End));
        let Ok(mut stream) = self.respond.send_response(response, is_whole) else { return };
        while !body.is_done() || next.is_some() {
            let part = match next.take() {
                Some(part) => Some(part),
                None => self.part(&mut body, &mut stream).await,
            };
            let sent = match part {
                Some(Part::Data(data)) => send(&mut stream, data).await,
                Some(Part::Trailers(fields)) => stream.send_trailers(fields),
                Some(Part::End) if is_whole => return,
                Some(Part::End) => stream.send_data(Bytes::new(), true),
                None => return stream.send_reset(Reason::INTERNAL_ERROR),
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// The reply's head, after the interim ones have gone. None once the session is gone, or the client.
    async fn head(&mut self) -> Option<(Response<()>, BodyReading)> {
        let mut heads = HeadReading::default();
        loop {
            match heads.next(&mut self.inbox, self.to_head).ok()? {
                Some(Head::Interim(response)) => self.respond.send_informational(response).ok()?,
                Some(Head::Final(response, body)) => return Some((response, body)),
                None => {
                    let respond = &mut self.respond;
                    let reset = |cx: &mut Context<'_>| respond.poll_reset(cx).map(|_| ());
                    if fill(&mut self.pipe, &mut self.inbox, reset).await? == 0 {
                        return None;
                    }
                }
            }
        }
    }

    /// The body's next part. None once the session is gone before its end, or the client.
    async fn part(&mut self, body: &mut BodyReading, stream: &mut SendStream<Bytes>) -> Option<Part> {
        loop {
            if let Some(part) = body.next(&mut self.inbox).ok()? {
                return Some(part);
            }
            let reset = |cx: &mut Context<'_>| stream.poll_reset(cx).map(|_| ());
            if fill(&mut self.pipe, &mut self.inbox, reset).await? == 0 {
                return body.closed().then_some(Part::End);
            }
        }
    }
}

/// Reads what the session has said. None once the client has reset its stream, or the pipe is broken.
async fn fill(
    pipe: &mut ReadHalf<DuplexStream>,
    inbox: &mut BytesMut,
    mut reset: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Option<usize> {
    let mut read = pin!(pipe.read_buf(inbox));
    poll_fn(|cx| match reset(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => read.as_mut().poll(cx).map(Result::ok),
    })
    .await
}
