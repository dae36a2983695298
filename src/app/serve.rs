//! `steadfast serve`: wire the gateway, open its doors, close them on a signal.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
};

use super::{
    Problem,
    cli::{ServeArgs, Source},
    drain::{self, StopSignals},
    embedded, housekeeping, logging,
    reload::{self, Hangups},
};
use crate::{
    config::{Config, File, Listen},
    ops::{self, AdminService, Reloader},
    proxy::Proxy,
    sim::{self, Sim, SimArgs},
    state::Gateway,
    wire::{self, Address, Capacity, Listener, ServeLimits, Service, ShutdownPhase, TlsIdentity, Workers},
};

/// How long a client's connection may be idle between two requests: as long as nginx's.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Open connections to the admin side: it must stay reachable when clients take all the room that there is.
const ADMIN_CONNECTIONS: usize = 64;

/// Serves until a signal.
pub(super) fn serve(args: ServeArgs) -> Result<(), Problem> {
    housekeeping::set_up_memory();
    let _log = logging::start(args.log_format, args.log_level)?;
    // Requests have threads of their own; here is what has to be done beside them.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(run(&args.source));
    // What a second signal cut must not hold the process.
    runtime.shutdown_background();
    served
}

/// `steadfast sim`.
pub(super) fn simulate(args: SimArgs) -> Result<(), Problem> {
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let mut signals = StopSignals::listen()?;
        let listen = args.listen;
        let ran = sim::run(args, async { signals.next().await }).await;
        ran.map_err(|error| format!("cannot run a simulated account on {listen}: {error}").into())
    })
}

async fn run(source: &Source) -> Result<(), Problem> {
    let mut signals = StopSignals::listen()?;
    let hangups = Hangups::listen()?;
    let (config, file, sims) = configure(source).await?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let gateway = Gateway::new(&config)?;
    let identity = config.server.tls.as_ref().map(ops::server_identity).transpose()?;
    let identity = identity.map(TlsIdentity::new);
    let public = bind(config.server.listen.iter().map(address)).await?;
    let public: Vec<Listener> = public
        .into_iter()
        .map(|listener| secured(listener, identity.as_ref()))
        .collect();
    let admin = bind(config.admin.listen.iter().copied().map(Address::Tcp)).await?;
    announce(&public, &admin, &sims, &config)?;

    let (phase, watcher) = watch::channel(ShutdownPhase::Running);
    let limits = ServeLimits {
        client_header: config.timeouts.client_header,
        keep_alive: KEEP_ALIVE,
        stall: config.timeouts.idle,
    };
    let service = Service {
        limits,
        capacity: Arc::new(Capacity::of_process(gateway.connections.clone())),
        workers: Some(Arc::new(Workers::start()?)),
    };
    let mut servers = JoinSet::new();
    let proxy = Proxy::new(gateway.clone());
    for listener in public {
        let proxy = proxy.clone();
        let recorder = proxy.clone();
        let handler = move |peer, request| proxy.clone().handle(peer, request);
        let refuse = move |peer, refusal| recorder.refuse(peer, refusal);
        servers.spawn(wire::serve(listener, service.clone(), watcher.clone(), handler, refuse));
    }
    // The operator's side stays to the end: it is where the drain can be watched.
    let token = config.admin.token.clone();
    let reloader = Reloader::new(gateway.clone(), config, file, source.overrides(), identity);
    let operator = AdminService::new(gateway.clone(), reloader.clone(), token);
    let _admin_phase = open_admin(admin, &operator, limits);
    tokio::spawn(housekeeping::keep_house(gateway.clone()));
    tokio::spawn(reload::keep_up_to_date(reloader.clone(), hangups));

    signals.next().await;
    let grace = reloader.config().server.grace;
    drain::drain(&gateway, &phase, &mut servers, grace, &mut signals).await;
    for sim in sims {
        sim.stop().await;
    }
    Ok(())
}

/// Serves `operator` until what is returned is dropped.
fn open_admin(
    listeners: Vec<Listener>,
    operator: &Arc<AdminService>,
    limits: ServeLimits,
) -> watch::Sender<ShutdownPhase> {
    let (phase, watcher) = watch::channel(ShutdownPhase::Running);
    let service = Service {
        limits,
        capacity: Arc::new(Capacity::new(ADMIN_CONNECTIONS, Arc::default())),
        workers: None,
    };
    for listener in listeners {
        let operator = operator.clone();
        let handler = move |_, request| operator.clone().handle(request);
        tokio::spawn(wire::serve(
            listener,
            service.clone(),
            watcher.clone(),
            handler,
            |_, _| None,
        ));
    }
    phase
}

/// The configuration, the file that it was read from, and the accounts that run inside this process.
async fn configure(source: &Source) -> Result<(Config, Option<File>, Vec<Sim>), Problem> {
    if source.is_embedded() {
        let (sims, upstreams) = embedded::start().await?;
        return Ok((Config::embedded(upstreams, &source.overrides())?, None, sims));
    }
    let file = source.file().map(File::read);
    let config = match &file {
        Some(file) => file.parse(&source.overrides())?,
        None => source.load()?,
    };
    Ok((config, file, Vec::new()))
}

fn address(listen: &Listen) -> Address {
    match listen {
        Listen::Tcp(address) => Address::Tcp(*address),
        Listen::Unix(path) => Address::Unix(path.clone()),
    }
}

async fn bind(addresses: impl Iterator<Item = Address>) -> Result<Vec<Listener>, Problem> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(Listener::bind(&address).await?);
    }
    Ok(listeners)
}

/// The listener with TLS, where that is configured.
fn secured(listener: Listener, identity: Option<&Arc<TlsIdentity>>) -> Listener {
    match identity {
        Some(identity) => listener.secured(identity.clone()),
        None => listener,
    }
}

/// Says on standard output where to call, and how to try it.
fn announce(public: &[Listener], admin: &[Listener], sims: &[Sim], config: &Config) -> Result<(), Problem> {
    let mut text = String::new();
    for listener in public {
        writeln!(text, "Steadfast listens on {}", url(listener))?;
    }
    for listener in admin {
        writeln!(text, "The admin side is on {}", url(listener))?;
    }
    if sims.is_empty() {
        let names: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        writeln!(text, "Upstreams: {}", names.join(", "))?;
    } else {
        let names: Vec<&str> = sims.iter().map(Sim::name).collect();
        writeln!(
            text,
            "Its upstreams are simulated: {} run inside this process, no model behind them.",
            names.join(" and ")
        )?;
        if let Some(address) = public.first().map(Listener::address) {
            let target = match address {
                Address::Tcp(address) => format!("http://{address}"),
                Address::Unix(path) => format!("--unix-socket '{}' http://localhost", path.display()),
            };
            writeln!(text, "\nPaste this twice, then change the key:\n")?;
            writeln!(
                text,
                "  curl -i {target}/v1/responses -H 'content-type: application/json' \\"
            )?;
            writeln!(
                text,
                r#"    -d '{{"model":"gpt-5.2","input":"Hello, who answers?","prompt_cache_key":"session-1"}}'"#
            )?;
            writeln!(text)?;
        }
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn url(listener: &Listener) -> String {
    let scheme = if listener.is_secure() { "https" } else { "http" };
    match listener.address() {
        Address::Tcp(address) => format!("{scheme}://{address}"),
        address @ Address::Unix(_) => address.to_string(),
    }
}
