//! The receiving side: a process with moods, and the sender's handle of that process.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standardwebhooks::{HEADER_WEBHOOK_ID, Webhook};
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use crate::sender::{HEADER_ATTEMPT, SECRET, SLOW_TIMEOUT, TIMEOUT};

/// The size of the largest request that is read.
const MAX_REQUEST_BYTES: usize = 2 << 20;

/// What the receiver counted: the first two over all runs, from its file, the others in this run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) accepted: u64,
    pub(crate) came_again: u64,
    pub(crate) forged: u64,
    refused: u64,
    stalled: u64,
    put_off: u64,
    hung_up: u64,
    hung_up_after_accepting: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the receiver accepted {} of them, and {} came again afterwards;",
            self.accepted, self.came_again
        )?;
        write!(
            f,
            "in this run it refused {}, stalled {}, put off {}, hung up on {}, and on {} after accepting them",
            self.refused, self.stalled, self.put_off, self.hung_up, self.hung_up_after_accepting
        )
    }
}

/// The sender's handle of the receiver's process.
pub(crate) struct Receiver {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Receiver {
    /// Starts the receiver, with the file in which it notes accepted deliveries.
    /// `is_slow`: it takes a second for each.
    pub(crate) fn start(accepted: &Path, is_slow: bool) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(if is_slow { "slow-receiver" } else { "receiver" })
            .arg(accepted)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the receiver has no output")?;
        let mut receiver = Self {
            child,
            stdout: BufReader::new(stdout),
            address: String::new(),
        };
        receiver.stdout.read_line(&mut receiver.address)?;
        Ok(receiver)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/webhooks", self.address.trim())
    }

    pub(crate) fn stop(mut self) -> Result<Report, Box<dyn Error>> {
        drop(self.child.stdin.take());
        let mut report = String::new();
        self.stdout.read_to_string(&mut report)?;
        self.child.wait()?;
        Ok(serde_json::from_str(&report)?)
    }
}

impl Drop for Receiver {
    /// Kills the receiver if the sender failed; a receiver that was stopped has ended already.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The receiver's process: receives until its stdin is closed, by the sender or by the sender's death.
pub(crate) fn run(accepted: &Path, is_slow: bool) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let desk = Arc::new(Desk::open(accepted, is_slow)?);
    println!("{}", listener.local_addr()?);
    let receiving = Arc::clone(&desk);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let desk = Arc::clone(&receiving);
            thread::spawn(move || desk.receive(stream));
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    let report = serde_json::to_string(&desk.book().report)?;
    // Ignored: the report has no reader if the sender died.
    let _ = writeln!(io::stdout(), "{report}");
    Ok(())
}

/// What the receiver does with a delivery.
enum Mood {
    Accept,
    Refuse,
    Stall,
    PutOff,
    HangUp,
    AcceptAndHangUp,
}

impl Mood {
    /// A bad mood five times in twenty. The same delivery and attempt always get the same mood (by FNV-1a).
    fn of(id: &str, attempt: &str) -> Self {
        let hash = id
            .bytes()
            .chain(attempt.bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        match (hash >> 32) % 20 {
            0 => Self::Refuse,
            1 => Self::Stall,
            2 => Self::PutOff,
            3 => Self::HangUp,
            4 => Self::AcceptAndHangUp,
            _ => Self::Accept,
        }
    }
}

/// Receives deliveries.
struct Desk {
    key: Webhook,
    is_slow: bool,
    book: Mutex<Book>,
}

/// The receiver's file: the ids of accepted deliveries, a line for each time one was accepted.
struct Book {
    file: File,
    ids: HashSet<String>,
    report: Report,
}

impl Book {
    /// Notes an accepted delivery. Returns once it is on disk: only then may the receiver answer.
    fn accept(&mut self, id: &str) -> io::Result<()> {
        self.file.write_all(format!("{id}\n").as_bytes())?;
        self.file.sync_data()?;
        self.count(id);
        Ok(())
    }

    fn count(&mut self, id: &str) {
        if self.ids.insert(id.to_owned()) {
            self.report.accepted += 1;
        } else {
            self.report.came_again += 1;
        }
    }
}

impl Desk {
    fn open(accepted: &Path, is_slow: bool) -> Result<Self, Box<dyn Error>> {
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(accepted)?;
        // If an earlier sender was killed a moment ago, its receiver may still be writing.
        file.lock()?;
        let mut book = Book {
            file: file.try_clone()?,
            ids: HashSet::new(),
            report: Report::default(),
        };
        for id in BufReader::new(file).lines() {
            book.count(&id?);
        }
        Ok(Self {
            key: Webhook::new(SECRET)?,
            is_slow,
            book: Mutex::new(book),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection, which carries one request. Errors are ignored here: the sender notices them.
    fn receive(&self, mut stream: TcpStream) {
        if let Ok(Some(head)) = self.answer(&mut stream) {
            let _ = write!(
                stream,
                "HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
    }

    /// The head of the answer; `None` to hang up without an answer.
    fn answer(&self, stream: &mut TcpStream) -> Result<Option<&'static str>, Box<dyn Error>> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (headers, body) = read_request(stream)?;
        if self.key.verify(&body, &headers).is_err() {
            self.book().report.forged += 1;
            return Ok(Some("401 Unauthorized"));
        }
        let id = header(&headers, HEADER_WEBHOOK_ID)?;
        // Simulated work, longer for longer bodies.
        let millis = match self.is_slow {
            true => 1_000,
            false => 15 + body.len() as u64 / 500,
        };
        thread::sleep(Duration::from_millis(millis));
        let mood = Mood::of(id, header(&headers, HEADER_ATTEMPT)?);
        let mut book = self.book();
        match mood {
            Mood::Accept => {
                book.accept(id)?;
                Ok(Some("204 No Content"))
            }
            Mood::Refuse => {
                book.report.refused += 1;
                Ok(Some("500 Internal Server Error"))
            }
            Mood::Stall => {
                book.report.stalled += 1;
                drop(book);
                thread::sleep(2 * if self.is_slow { SLOW_TIMEOUT } else { TIMEOUT });
                Ok(None)
            }
            Mood::PutOff => {
                book.report.put_off += 1;
                Ok(Some("429 Too Many Requests\r\nretry-after: 1"))
            }
            Mood::HangUp => {
                book.report.hung_up += 1;
                Ok(None)
            }
            Mood::AcceptAndHangUp => {
                book.accept(id)?;
                book.report.hung_up_after_accepting += 1;
                Ok(None)
            }
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Box<dyn Error>> {
    let value = headers.get(name).ok_or("a header is missing")?;
    Ok(value.to_str()?)
}

/// Reads one request with a content length: its headers and its body.
fn read_request(stream: &mut TcpStream) -> Result<(HeaderMap, Vec<u8>), Box<dyn Error>> {
    let mut bytes = Vec::new();
    let (body_at, headers) = loop {
        read_some(stream, &mut bytes)?;
        let mut parsed = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut parsed);
        if let httparse::Status::Complete(body_at) = request.parse(&bytes)? {
            let mut headers = HeaderMap::new();
            for header in request.headers {
                headers.insert(
                    HeaderName::try_from(header.name)?,
                    HeaderValue::from_bytes(header.value)?,
                );
            }
            break (body_at, headers);
        }
    };
    let length: usize = header(&headers, "content-length")?.parse()?;
    while bytes.len() < body_at.saturating_add(length) {
        read_some(stream, &mut bytes)?;
    }
    Ok((headers, bytes.split_off(body_at)))
}

fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
    let mut buffer = [0; 8192];
    let count = stream.read(&mut buffer)?;
    if count == 0 || bytes.len() + count > MAX_REQUEST_BYTES {
        return Err("the request ends too early, or is too long".into());
    }
    bytes.extend_from_slice(&buffer[..count]);
    Ok(())
}
