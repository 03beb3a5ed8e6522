//! `ready`: asks an operator whether it is ready. For `helm test`, in an image that has nothing else to ask with.

use std::io;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::failure::{ExitCode, Failure};

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
    /// Ask again for up to this long (30s, 10m)
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
}

/// Asks until the answer is yes or the time is over.
pub(super) async fn run(args: &ReadyArgs) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    loop {
        match ask(&args.address).await {
            Ok(()) => {
                println!("{} is ready", args.address);
                return Ok(ExitCode::Done);
            }
            Err(failure) if began.elapsed() + PAUSE > args.wait.unwrap_or_default() => return Err(failure),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn ask(address: &str) -> Result<(), Failure> {
    let answer = timeout(PATIENCE, get(address)).await.unwrap_or_else(|late| Err(late.into())).map_err(|error| {
        let next = "look at the operator's pods and the Service";
        Failure::new(ExitCode::NotDone, format!("{address} does not answer: {error}; {next}"))
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let message = format!("{address} is not ready: {status} {}; look at the operator's log", body.trim());
    Err(Failure::new(ExitCode::NotDone, message))
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
        let args = ReadyArgs { address: answering(answer).await, wait: None };
        match (run(&args).await, refusal) {
            (Ok(ExitCode::Done), None) => {}
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
            (other, _) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told() {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let error = run(&ReadyArgs { address: free.to_string(), wait: None }).await.expect_err("nobody listens");
        assert!(error.to_string().contains("does not answer"), "{error}");
    }
}
