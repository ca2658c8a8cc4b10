//! A blocking HTTP/1.1 client on `std` alone: one connection a request, JSON bodies.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Where requests go, and whose they are.
#[derive(Debug, Clone)]
pub struct Http {
    /// `host:port`.
    pub address: String,
    /// Sent as a bearer token.
    pub token: Option<String>,
    /// For connecting, and for each read and write.
    pub timeout: Duration,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// An answer whose body is still to be read.
pub struct Opened {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Box<dyn BufRead + Send>,
}

impl Http {
    /// A client of a node's URL, or `host:port`.
    pub fn new(url: &str) -> Http {
        let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Http { address, token: None, timeout: Duration::from_secs(30) }
    }

    /// The same node, as the owner of a token.
    pub fn with_token(&self, token: &str) -> Http {
        Http { token: Some(token.into()), ..self.clone() }
    }

    /// The same, with another timeout.
    pub fn with_timeout(&self, timeout: Duration) -> Http {
        Http { timeout, ..self.clone() }
    }

    /// GET.
    pub fn get(&self, path: &str) -> io::Result<Response> {
        self.send("GET", path, &[], b"")
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> io::Result<Response> {
        let body = body.to_string();
        self.send("POST", path, &[("content-type", "application/json")], body.as_bytes())
    }

    /// Any request, read to the end of its answer.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut opened = self.open(method, path, headers, body)?;
        let mut bytes = vec![];
        opened.body.read_to_end(&mut bytes)?;
        Ok(Response { status: opened.status, headers: opened.headers, body: bytes })
    }

    /// Any request, up to the end of the answer's headers.
    pub fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Opened> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.address,
            body.len()
        );
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.raw(&[head.as_bytes(), body].concat())
    }

    /// What a metric is at now, its labels in its name as they are printed; 0 until it is first counted.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = String::from_utf8(self.get("/metrics").unwrap().body).unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Sends bytes as they are, and reads the answer's headers.
    pub fn raw(&self, request: &[u8]) -> io::Result<Opened> {
        let invalid = |e: std::net::AddrParseError| io::Error::new(io::ErrorKind::InvalidInput, e);
        let address = self.address.parse().map_err(invalid)?;
        let mut stream = TcpStream::connect_timeout(&address, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        stream.set_nodelay(true)?;
        stream.write_all(request)?;
        read_head(BufReader::new(stream))
    }
}

fn bad(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_head(mut reader: BufReader<TcpStream>) -> io::Result<Opened> {
    let status_line = read_line(&mut reader)?;
    let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| bad("not an HTTP status line"))?;
    let mut headers = vec![];
    loop {
        let line = read_line(&mut reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("not a header"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let body: Box<dyn BufRead + Send> = if find("transfer-encoding") == Some("chunked") {
        Box::new(BufReader::new(Chunked { reader, left: 0, ended: false }))
    } else if let Some(length) = find("content-length").and_then(|v| v.parse().ok()) {
        Box::new(reader.take(length))
    } else {
        Box::new(reader)
    };
    Ok(Opened { status, headers, body })
}

/// Undoes chunked transfer encoding.
struct Chunked {
    reader: BufReader<TcpStream>,
    /// Of the present chunk, in bytes.
    left: usize,
    ended: bool,
}

impl Read for Chunked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        if self.left == 0 {
            let line = read_line(&mut self.reader)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            self.left = usize::from_str_radix(size, 16).map_err(|_| bad("not a chunk size"))?;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let want = buffer.len().min(self.left);
        let got = self.reader.read(&mut buffer[..want])?;
        if got == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= got;
        if self.left == 0 {
            read_line(&mut self.reader)?;
        }
        Ok(got)
    }
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON, of an answer that must have this status.
    pub fn expect(&self, status: u16) -> Value {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{body}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// What was made: 201, or 200 where a node had to ask a new leader again.
    pub fn expect_made(&self) -> Value {
        assert!(matches!(self.status, 200 | 201), "{self:?}");
        self.json()
    }

    /// The status, of an answer that need not be JSON.
    pub fn expect_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
    }

    /// An error of this status and code, with every field that errors have; its body's `error`.
    pub fn expect_error(&self, status: u16, code: &str) -> Value {
        let error = self.expect(status)["error"].clone();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{error}");
        assert!(error["temporary"].is_boolean(), "{error}");
        assert!(error["may_have_applied"].is_boolean(), "{error}");
        error
    }
}
