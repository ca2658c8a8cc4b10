//! The tests' own HTTP client and stream reader, against canned answers: what reads wrongly proves
//! nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use crate::common::http::Http;
use crate::common::sse::Sse;

/// Answers one request with these bytes; returns the request's headers when joined.
fn serve_once(answer: &'static [u8]) -> (Http, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = Http::new(&format!("http://{}/", listener.local_addr().unwrap()));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        let lines = reader.lines().map(Result::unwrap).take_while(|line| !line.is_empty());
        let lines = lines.collect();
        // In pieces, to split lines and chunks anywhere.
        for piece in answer.chunks(3) {
            // Who has read what they need may hang up.
            if stream.write_all(piece).and_then(|()| stream.flush()).is_err() {
                break;
            }
        }
        lines
    });
    (http, server)
}

#[test]
fn bodies_of_known_length_and_in_chunks_are_read() {
    let (http, server) = serve_once(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}junk");
    assert_eq!(http.with_token("t").get("/x").unwrap().expect(200)["a"], 1);
    let request = server.join().unwrap();
    assert_eq!(request[0], "GET /x HTTP/1.1");
    assert!(request.contains(&"authorization: Bearer t".to_owned()));

    let (http, _) = serve_once(
        b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n3;x=y\r\n:2}\r\n0\r\n\r\n",
    );
    assert_eq!(http.get("/").unwrap().expect(503)["a"], 2);
}

#[test]
fn a_body_that_breaks_off_is_an_error() {
    let (http, _) =
        serve_once(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\n{\"a\"");
    assert!(http.get("/").is_err());
}

#[test]
fn streams_are_read_event_by_event() {
    let (http, server) = serve_once(
        b"HTTP/1.1 200 OK\r\n\r\nretry: 1\nevent: followed\ndata: {\"head\":2}\n\n\
          : heartbeat\n\nid: e:1\ndata: {\"seq\":1,\"client_msg_id\":\"x\"}\n\n\
          event: caught_up\nid: e:1\ndata: {\"seq\":1}\n\nevent: ended\ndata: {\"seq\":1}\n\n",
    );
    let mut stream = Sse::open(&http, "general", Some(0), Some("e:0")).unwrap();
    let request = server.join().unwrap();
    assert_eq!(request[0], "GET /v1/rooms/general/events?after=0 HTTP/1.1");
    assert!(request.contains(&"last-event-id: e:0".to_owned()));
    assert_eq!(stream.followed["head"], 2);
    let event = stream.next().unwrap();
    assert_eq!((event.id.as_str(), event.seq()), ("e:1", Some(1)));
    let mark = stream.next().unwrap();
    assert!(mark.is_caught_up());
    assert_eq!(mark.seq(), None);
    assert!(stream.next().is_err(), "the node ended it");
}
