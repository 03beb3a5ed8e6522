//! `ready`: asks an operator whether it is ready. For `helm test`, in an image that has nothing else to ask with.

use std::io;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long until it is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// The most that an answer has to say.
const ANSWER: u64 = 4096;

/// Options of `ready`.
#[derive(Debug, Args)]
pub struct ReadyArgs {
    /// Where the operator serves its probes
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// Ask again for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

/// Why it is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// Nobody answers.
    #[error("{address} does not answer: {error}; look at the operator's pods and the Service")]
    Silent {
        /// Who was asked.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The answer is no.
    #[error("{address} is not ready: {answer}; look at the operator's log")]
    Answered {
        /// Who was asked.
        address: String,
        /// What it said.
        answer: String,
    },
}

/// Asks until the answer is yes or the time is over.
///
/// # Errors
/// What the last answer was, if it was not yes.
pub async fn run(args: &ReadyArgs) -> Result<(), NotReady> {
    let end = Instant::now() + Duration::from_secs(args.wait);
    loop {
        match ask(&args.address).await {
            Ok(()) => {
                println!("{} is ready", args.address);
                return Ok(());
            }
            Err(error) if Instant::now() + PAUSE > end => return Err(error),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn ask(address: &str) -> Result<(), NotReady> {
    let silent = |error| NotReady::Silent { address: address.to_owned(), error };
    let answer = timeout(PATIENCE, get(address)).await.unwrap_or_else(|late| Err(late.into())).map_err(silent)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    Err(NotReady::Answered { address: address.to_owned(), answer: format!("{status} {}", body.trim()) })
}

async fn get(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::net::TcpListener;

    use super::*;

    async fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[rstest]
    #[case("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n", None)]
    #[case("HTTP/1.1 503 Service Unavailable\r\n\r\nresources are not listed yet\n", Some("not listed yet"))]
    #[case("200 of something else", Some("is not ready"))]
    #[case("", Some("is not ready"))]
    #[tokio::test]
    async fn only_200_is_yes(#[case] answer: &'static str, #[case] refusal: Option<&str>) {
        let args = ReadyArgs { address: answering(answer).await, wait: 0 };
        match (run(&args).await, refusal) {
            (Ok(()), None) => {}
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
            (other, _) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told() {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let error = run(&ReadyArgs { address: free.to_string(), wait: 0 }).await.expect_err("nobody listens");
        assert!(error.to_string().contains("does not answer"), "{error}");
    }
}
