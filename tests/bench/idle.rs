//! The operator at rest: its resident size with a hundred resources that have reached their phase.

use std::time::Duration;

use serde_json::json;

use crate::operator::{ACCOUNT, Site, spec};
use crate::report::{Line, Report};
use crate::steps::status_bytes;
use crate::support::control_plane::ControlPlaneOptions;
use crate::support::redis_server::{Options, Standalone};

const RESOURCES: usize = 100;

const REST: Duration = Duration::from_secs(30);

/// What the project promises.
const MOST: f64 = 32.0;

pub async fn measure(report: &mut Report) {
    let site = Site::alone("bench", ControlPlaneOptions::default()).await;
    let server = Standalone::start(Options::default()).await;
    let redis = server.endpoint();
    let operator = site.replica(ACCOUNT, &["--lease-seconds", "30"]).await;
    for number in 0..RESOURCES {
        // One deployment each, so that none is another's duplicate.
        let more = json!({ "deploymentId": format!("d{number}"), "targetPhase": "Planned" });
        site.create(&format!("bench-{number}"), spec(&redis, more)).await;
    }
    for number in 0..RESOURCES {
        let within = Duration::from_secs(120);
        site.wait(&format!("bench-{number}"), within, "Ready", |status| crate::operator::ready(status).0 == "True")
            .await;
    }
    let pid = operator.process.pid().to_string();
    let mib = |field| status_bytes(&pid, field) as f64 / f64::from(1 << 20);
    report.push(Line::new("operator", "resident when the last is ready", mib("VmRSS"), "MiB"));
    // At rest: the promise is about what an operator costs that has nothing to do.
    tokio::time::sleep(REST).await;
    let what = format!("resident with {RESOURCES} resources, {} s later", REST.as_secs());
    report.push(Line::new("operator", what, mib("VmRSS"), "MiB").of("at most", MOST));
    report.push(Line::new("operator", "at its highest", mib("VmHWM"), "MiB"));
}
