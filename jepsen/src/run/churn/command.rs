//! Orders as they are given: by the product's command line, to any node that runs.

use crate::run::churn::Churn;
use crate::run::churn::order::Order;
use crate::run::client::Outcome;

/// How long the command line keeps trying.
const TRIES_FOR: &str = "10s";

impl Churn {
    /// Gives an order, and does not wait until it is done.
    pub(super) async fn order(&mut self, order: Order) -> Outcome<()> {
        let mut arguments = order.arguments();
        arguments.push("--no-wait".into());
        match self.folkmoot(arguments).await {
            Outcome::Ok(_) => Outcome::Ok(()),
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// The options with which a new node is let in.
    pub(super) async fn ticket(&mut self) -> Outcome<Vec<String>> {
        Outcome::Ok(vec![])
    }

    /// Runs a command; what it printed.
    pub(super) async fn folkmoot(&mut self, mut arguments: Vec<String>) -> Outcome<String> {
        let servers = self.servers().into_iter();
        let servers: Vec<String> =
            servers.map(|place| format!("http://{}", self.cluster.nodes[place].client)).collect();
        if servers.is_empty() {
            return Outcome::Failed("no-node".into());
        }
        arguments.extend(["--json", "--timeout", TRIES_FOR, "--server"].map(str::to_owned));
        arguments.push(servers.join(","));
        let cluster = self.cluster.clone();
        let run = move || {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            cluster.folkmoot(&words)
        };
        match self.blocking(run).await {
            Some(Ok(output)) if output.status.success() => {
                Outcome::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Some(Ok(output)) => refusal(&output.stderr),
            Some(Err(why)) => Outcome::Failed(why),
            None => Outcome::Unknown("panicked".into()),
        }
    }
}

/// What a command said that failed.
fn refusal(said: &[u8]) -> Outcome<String> {
    let error: Option<serde_json::Value> = serde_json::from_slice(said).ok();
    let error = error.map(|said| said["error"].clone()).unwrap_or_default();
    match (error["code"].as_str(), error["may_have_applied"].as_bool()) {
        (Some(code), Some(false)) => Outcome::Failed(code.into()),
        (Some(code), _) => Outcome::Unknown(code.into()),
        _ => Outcome::Unknown(String::from_utf8_lossy(said).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_no_is_a_refusal() {
        let no = br#"{"error":{"code":"forbidden","may_have_applied":false}}"#;
        assert!(matches!(refusal(no), Outcome::Failed(code) if code == "forbidden"));
        let unsure = br#"{"error":{"code":"timeout","may_have_applied":true}}"#;
        assert!(matches!(refusal(unsure), Outcome::Unknown(code) if code == "timeout"));
        assert!(
            matches!(refusal(b"folkmoot: odd\n"), Outcome::Unknown(said) if said.ends_with("odd"))
        );
    }
}
