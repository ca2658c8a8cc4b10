//! `folkmoot demo`: a whole cluster on this machine, ready to chat.
//!
//! Starts the nodes as child processes, forms the cluster, makes room `general` and two users.
//! Tokens are kept in `demo.json` in the data directory, so that another run resumes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::local::{Local, Logs, Plan};
use crate::cli::{output, signal};
use crate::client::{Client, ClientOptions};
use crate::error::{Code, Error};
use crate::gateway::founding::mint_first_token;
use crate::id::{RoomId, UserId};
use crate::proto::v1 as pb;

/// Who may chat at once.
const USERS: [(&str, &str); 2] = [("alice", "Alice"), ("bob", "Bob")];
/// Where they meet.
const ROOM: &str = "general";
/// How long the cluster may take to get ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Options of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot demo\n  \
    folkmoot demo --dir /tmp/chat --base-port 8400\n\n\
    Runs until Ctrl-C. Run again with the same --dir, it goes on where it stopped.")]
pub(super) struct Args {
    /// How many nodes: 1, 3 or 5.
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// Directory for the nodes' data and the tokens.
    #[arg(long, value_name = "DIR", default_value = "folkmoot-data")]
    dir: PathBuf,
    /// Node i uses this port plus 10·(i−1) for clients, and the next port for its peers.
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    base_port: u16,
    /// Write one line of JSON once ready: nodes, tokens.
    #[arg(long)]
    json: bool,
}

/// What a demo keeps between runs. Secret: it has tokens.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    nodes: u16,
    admin_token: String,
    users: Vec<KeptUser>,
    /// The room and the users' places in it are made.
    furnished: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptUser {
    user: String,
    token: String,
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Outcome {
    if ![1, 3, 5].contains(&args.nodes) {
        return Err(Failure::Usage("--nodes must be 1, 3 or 5".into()));
    }
    let (nodes, base_port) = (args.nodes, args.base_port);
    let mut plan = Plan { nodes, dir: args.dir.clone(), base_port, logs: Logs::Stderr };
    plan.free_addresses()?;
    let cannot = |what: &str, error: std::io::Error| {
        Failure::failed(format!("cannot {what} {}: {error}", args.dir.display()))
    };
    fs::create_dir_all(&args.dir).map_err(|error| cannot("make", error))?;
    let dir = args.dir.canonicalize().map_err(|error| cannot("use", error))?;
    let kept = load(&dir)?;
    if let Some(kept) = &kept
        && kept.nodes != args.nodes
    {
        return Err(Failure::failed(format!(
            "{} holds a cluster of {} nodes; use --nodes {}, or another --dir",
            args.dir.display(),
            kept.nodes,
            kept.nodes
        )));
    }
    let mut stop = signal::Stop::catch()?;
    plan.dir.clone_from(&dir);
    let mut local = plan.start()?;
    let urls = local.urls();
    let ready = tokio::select! {
        ready = local.while_running(furnish(&dir, urls, args.nodes, kept)) => Some(ready),
        () = stop.asked() => None,
    };
    let outcome = match ready {
        Some(Ok((kept, status))) => {
            announce(&args, &local, &kept, &status)?;
            attend(&mut local, &mut stop).await
        }
        Some(Err(failure)) => Err(failure),
        None => Ok(()),
    };
    eprintln!("folkmoot: stopping (again to stop at once)");
    local.stop(async { stop.asked().await }).await;
    outcome
}

/// Makes whatever is missing: cluster, users, room.
async fn furnish(
    dir: &Path,
    urls: Vec<String>,
    nodes: u16,
    kept: Option<Kept>,
) -> Outcome<(Kept, pb::StatusResponse)> {
    Local::answering(urls.clone()).await?;
    let options = ClientOptions {
        servers: urls.clone(),
        deadline: READY_TIMEOUT,
        ..ClientOptions::default()
    };
    let client = Client::connect(options)?;
    let mut kept = match kept {
        Some(kept) => kept,
        None => {
            let kept = Kept { nodes, admin_token: mint_first_token()?, ..Kept::default() };
            save(dir, &kept)?;
            kept
        }
    };
    let admin = client.with_token(&kept.admin_token)?;
    if !kept.furnished {
        form(&client, &kept, dir).await?;
        let room = RoomId::parse(ROOM).map_err(Error::from)?;
        admin.create_room(&room, "General chat", pb::RoomKind::Public).await?;
        for (user, name) in USERS {
            let id = UserId::parse(user).map_err(Error::from)?;
            let token = match kept.users.iter().find(|kept| kept.user == user) {
                Some(kept) => kept.token.clone(),
                None => {
                    let token = token_of(&admin, &id, name).await?;
                    kept.users.push(KeptUser { user: user.into(), token: token.clone() });
                    save(dir, &kept)?;
                    token
                }
            };
            admin.with_token(&token)?.join(&room).await?;
        }
        kept.furnished = true;
        save(dir, &kept)?;
    }
    // Ready means that every node answers with what was acknowledged.
    for url in urls {
        let options = ClientOptions {
            servers: vec![url],
            token: Some(kept.admin_token.clone()),
            deadline: READY_TIMEOUT,
            ..ClientOptions::default()
        };
        Client::connect(options)?.list_rooms("", 1, "").await?;
    }
    Ok((kept, admin.cluster_status().await?))
}

async fn form(client: &Client, kept: &Kept, dir: &Path) -> Outcome {
    match client.init_cluster(u32::from(kept.nodes), 0, &kept.admin_token).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == Code::AlreadyInitialized => {
            // What it has is no token of this cluster's. Should it stay, the next run ends here, too.
            let _ = fs::remove_file(dir.join("demo.json"));
            Err(Failure::failed(format!(
                "{} holds a cluster, but no demo.json with its tokens; use another --dir, or remove it",
                dir.display()
            )))
        }
        Err(error) => Err(error.into()),
    }
}

async fn token_of(admin: &Client, user: &UserId, name: &str) -> Outcome<String> {
    match admin.create_user(user, name, false).await {
        Ok(created) if !created.token.is_empty() => Ok(created.token),
        // An earlier run was interrupted before it kept the token.
        Ok(_) => Ok(admin.issue_token(user, "demo").await?),
        Err(error) if error.code == Code::AlreadyExists => {
            Ok(admin.issue_token(user, "demo").await?)
        }
        Err(error) => Err(error.into()),
    }
}

fn load(dir: &Path) -> Outcome<Option<Kept>> {
    let path = dir.join("demo.json");
    let bad = |error: String| Failure::failed(format!("{}: {error}", path.display()));
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| bad(e.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Writes the tokens, readable by their owner only, whole or not at all.
fn save(dir: &Path, kept: &Kept) -> Outcome {
    let (path, part) = (dir.join("demo.json"), dir.join("demo.json.part"));
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&part); // what a crash left may have another mode
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(&serde_json::to_vec_pretty(kept)?)?;
        file.sync_all()?;
        fs::rename(&part, &path)
    };
    write().map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

fn announce(args: &Args, local: &Local, kept: &Kept, status: &pb::StatusResponse) -> Outcome {
    if args.json {
        let nodes = local.nodes.iter().map(|node| {
            let client = node.client.to_string();
            let known = status.nodes.iter().find(|known| known.client_address.contains(&client));
            json!({
                "id": known.map_or(u64::from(node.number), |known| known.id),
                "client": node.url(),
                "peer": node.peer.to_string(),
                "pid": node.pid,
                "dir": node.dir.display().to_string(),
            })
        });
        let nodes: Vec<_> = nodes.collect();
        let users = serde_json::to_value(&kept.users).unwrap_or_default();
        let ready = json!({ "nodes": nodes, "admin_token": kept.admin_token, "users": users });
        output::line(ready)?;
        return Ok(());
    }
    let program = program();
    let token = |user: &str| {
        let kept = kept.users.iter().find(|kept| kept.user == user);
        kept.map_or("", |kept| kept.token.as_str())
    };
    let mut text = format!("\nReady: {} nodes, data in {}\n\n", args.nodes, args.dir.display());
    for node in &local.nodes {
        text.push_str(&format!("  node{}  {}  pid {}\n", node.number, node.url(), node.pid));
    }
    text.push_str(&format!(
        "\nChat, in other terminals:\n\n  export FOLKMOOT_SERVER={servers}\n  \
         {program} tail {ROOM} --token {alice}\n  {program} post {ROOM} 'Hello' --token {bob}\n\n\
         In a browser: {url}, with the password that this prints for alice:\n  \
         {program} user password alice --token {admin}\n\n\
         Administer: {program} cluster status --token {admin}\n\
         Then kill a node (kill -9 {pid}) and go on chatting.\n\
         Tokens are in {dir}. Ctrl-C stops everything; nothing is lost.\n",
        servers = local.urls().join(","),
        url = local.nodes[0].url(),
        alice = token("alice"),
        bob = token("bob"),
        admin = kept.admin_token,
        pid = local.nodes[0].pid,
        dir = args.dir.join("demo.json").display(),
    ));
    Ok(output::line(text)?)
}

/// How to call this very program from the current directory.
fn program() -> String {
    let Ok(exe) = std::env::current_exe() else { return "folkmoot".into() };
    let here = std::env::current_dir().unwrap_or_default();
    match exe.strip_prefix(&here) {
        Ok(relative) => format!("./{}", relative.display()),
        Err(_) => exe.display().to_string(),
    }
}

/// Reports nodes that end, until asked to stop or none is left.
async fn attend(local: &mut Local, stop: &mut signal::Stop) -> Outcome {
    loop {
        tokio::select! {
            () = stop.asked() => return Ok(()),
            (number, how) = local.exited() => {
                let left = local.nodes.iter().filter(|node| node.running).count();
                eprintln!("folkmoot: node{number} ended ({how}); {left} nodes go on");
                if left == 0 {
                    return Err(Failure::failed("no node is left"));
                }
                let peers = local.peers();
                for node in local.nodes.iter().filter(|node| node.number == number) {
                    let again = node.command_line(&program(), &peers);
                    eprintln!("folkmoot: to start it again: {again}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_are_kept_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        fs::write(dir.path().join("demo.json.part"), "left by a crash").unwrap();
        let users = vec![KeptUser { user: "alice".into(), token: "t".into() }];
        let kept = Kept { nodes: 3, users, ..Kept::default() };
        save(dir.path(), &kept).unwrap();
        save(dir.path(), &kept).unwrap();
        let mode = fs::metadata(dir.path().join("demo.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load(dir.path()).unwrap().unwrap().users[0].token, "t");
        fs::write(dir.path().join("demo.json"), "{").unwrap();
        assert!(load(dir.path()).unwrap_err().to_string().contains("demo.json"));
    }
}
