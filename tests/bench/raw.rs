//! The limit's client: raw pipelines of 100 on several blocking connections, as `redis-benchmark -P 100` does it.
//!
//! Owns the bytes on the wire and nothing else: no retries, no routing, no classes of errors. What this client
//! reaches is what Redis can do for anybody, so it keeps every connection full and looks at answers no further
//! than to count them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

/// Commands in one pipeline.
pub const PIPELINE: usize = 100;

/// Connections to one server, the number that `redis-benchmark` opens by itself.
pub const LANES: usize = 50;

/// One connection and what was read from it but not yet looked at.
pub struct Lane {
    stream: TcpStream,
    read: Vec<u8>,
    at: usize,
    write: Vec<u8>,
}

/// One answer, as far as a limit cares.
pub enum Answer<'a> {
    /// A status, or an array, whose items were skipped.
    Other,
    /// A number.
    Int(i64),
    /// A string.
    Bulk(&'a [u8]),
    /// Nothing there.
    Nil,
}

impl Lane {
    /// Connects to a server on the loopback address.
    pub fn open(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection to Redis");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self { stream, read: Vec::with_capacity(1 << 16), at: 0, write: Vec::with_capacity(1 << 14) }
    }

    /// Sends one command and answers its answer.
    pub fn ask(&mut self, arguments: &[&[u8]]) -> Answer<'_> {
        encode(&mut self.write, arguments);
        self.send();
        self.answer()
    }

    /// One page of a scan: the next cursor and how many keys it had.
    pub fn scan(&mut self, cursor: &[u8]) -> (Vec<u8>, usize) {
        encode(&mut self.write, &[b"SCAN", cursor, b"COUNT", b"1000", b"MATCH", b"tenant:*"]);
        self.send();
        assert_eq!(self.line().0, b'*', "SCAN answers an array");
        let Answer::Bulk(next) = self.answer() else { panic!("SCAN answers a cursor") };
        let next = next.to_vec();
        let (kind, keys) = self.line();
        assert_eq!(kind, b'*', "SCAN answers keys");
        (0..keys).for_each(|_| {
            self.answer();
        });
        (next, usize::try_from(keys).expect("a count"))
    }

    fn send(&mut self) {
        self.stream.write_all(&self.write).expect("writing to Redis");
        self.write.clear();
    }

    fn answer(&mut self) -> Answer<'_> {
        let (kind, number) = self.line();
        match kind {
            b'$' if number < 0 => Answer::Nil,
            b'$' => {
                let length = usize::try_from(number).expect("a length");
                self.need(length + 2);
                let start = self.at;
                self.at += length + 2;
                Answer::Bulk(&self.read[start..start + length])
            }
            b'*' => {
                (0..number).for_each(|_| {
                    self.answer();
                });
                Answer::Other
            }
            b':' => Answer::Int(number),
            _ => Answer::Other,
        }
    }

    /// Reads a line: its first byte, and the number after it (0 where there is none).
    fn line(&mut self) -> (u8, i64) {
        let mut looked = 0;
        loop {
            if let Some(end) = self.read[self.at + looked..].iter().position(|&byte| byte == b'\n') {
                let line = &self.read[self.at..self.at + looked + end];
                let kind = line[0];
                assert!(kind != b'-', "Redis refused: {}", String::from_utf8_lossy(line));
                let number = if matches!(kind, b':' | b'$' | b'*') { number(&line[1..]) } else { 0 };
                self.at += looked + end + 1;
                return (kind, number);
            }
            looked = self.read.len() - self.at;
            self.fill();
        }
    }

    fn need(&mut self, bytes: usize) {
        while self.read.len() - self.at < bytes {
            self.fill();
        }
    }

    /// Reads more; what was looked at already goes, so offsets from `at` stay right.
    fn fill(&mut self) {
        self.read.drain(..self.at);
        self.at = 0;
        let before = self.read.len();
        self.read.resize(before + (1 << 16), 0);
        let got = self.stream.read(&mut self.read[before..]).expect("reading from Redis");
        assert!(got > 0, "Redis closed the connection");
        self.read.truncate(before + got);
    }
}

fn number(digits: &[u8]) -> i64 {
    let (sign, digits) = match digits {
        [b'-', rest @ ..] => (-1, rest),
        rest => (1, rest),
    };
    sign * digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |sum, &digit| sum * 10 + i64::from(digit - b'0'))
}

/// Appends one command.
pub fn encode(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    head(out, b'*', arguments.len());
    for argument in arguments {
        head(out, b'$', argument.len());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

/// `write!` to a vector costs more than the rest of the encoding together.
fn head(out: &mut Vec<u8>, kind: u8, mut number: usize) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Sends the commands of `count` items and hears `answers` answers to each. `push` appends an item's commands;
/// `hear` is told the item and each of its answers.
pub fn pipelined(
    port: u16,
    count: usize,
    answers: usize,
    push: impl Fn(usize, &mut Vec<u8>),
    mut hear: impl FnMut(usize, &Answer<'_>),
) {
    let items = (PIPELINE / answers).max(1);
    let batches = count.div_ceil(items);
    let of = |batch: usize| batch * items..((batch + 1) * items).min(count);
    let mut lanes: Vec<Lane> = (0..LANES.min(batches)).map(|_| Lane::open(port)).collect();
    let send = |lane: &mut Lane, batch: usize| {
        of(batch).for_each(|item| push(item, &mut lane.write));
        lane.send();
    };
    lanes.iter_mut().enumerate().for_each(|(batch, lane)| send(lane, batch));
    let width = lanes.len();
    for batch in 0..batches {
        let lane = &mut lanes[batch % width];
        for item in of(batch) {
            (0..answers).for_each(|_| hear(item, &lane.answer()));
        }
        if batch + width < batches {
            send(lane, batch + width);
        }
    }
}
