//! `steadfast serve`: sets the gateway up, starts its listeners, and stops them at a signal.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
};

use super::{
    announce,
    cli::{ConfigArgs, ServeArgs},
    drain::{self, StopSignals},
    embedded,
    error::AppError,
    housekeeping, logging, memory,
    reload::{self, Hangups},
};
use crate::{
    config::{Config, File, Listen, ServerSettings},
    ops::{self, AdminService, Reloader},
    proxy::Proxy,
    sim::{self, Sim, SimArgs},
    state::Gateway,
    wire::{self, Address, Capacity, Listener, ServeLimits, Service, ShutdownPhase, TlsIdentity, Workers},
};

/// The maximum time between two requests on a client's connection. It is the default of nginx.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// The maximum number of connections to the admin listener. They are counted separately, so that the admin listener
/// stays reachable when clients use all connections of the public listener.
const ADMIN_CONNECTIONS: usize = 64;
/// The part of the file descriptors that is kept for the admin listener, as a divisor, and its bounds. So the listener also
/// stays reachable when clients and upstreams use all others.
const ADMIN_DESCRIPTORS_DIVISOR: usize = 16;
const MIN_ADMIN_DESCRIPTORS: usize = 4;
const MAX_ADMIN_DESCRIPTORS: usize = 16;
/// A warning is logged at the start if fewer client connections are possible.
const FEW_CLIENTS: usize = 1024;
/// The maximum time for a request head to the admin listener, and for reading nothing of its response.
const ADMIN_TIME: Duration = Duration::from_secs(10);

/// Serves until a signal stops the process.
///
/// # Errors
/// If the configuration is invalid, or an address, a thread or a signal handler is not available.
pub(super) fn serve(args: ServeArgs) -> Result<(), AppError> {
    memory::configure_allocator();
    let _log = logging::start(args.log_format, args.log_level)?;
    wire::raise_descriptor_limit();
    // Requests are served by threads of their own. This runtime is for the admin listener and for background tasks.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(run(&args.config));
    // Tasks that a second signal has aborted must not delay the exit.
    runtime.shutdown_background();
    served
}

/// `steadfast sim`: runs a simulated account until a signal stops the process.
///
/// # Errors
/// If the account cannot listen on its address.
pub(super) fn simulate(args: SimArgs) -> Result<(), AppError> {
    wire::raise_descriptor_limit();
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let mut signals = StopSignals::listen()?;
        let listen = args.listen;
        let ran = sim::run(args, async { signals.next().await }).await;
        ran.map_err(|error| format!("cannot run a simulated account on {listen}: {error}").into())
    })
}

/// Runs a gateway until a signal stops it.
async fn run(args: &ConfigArgs) -> Result<(), AppError> {
    let mut signals = StopSignals::listen()?;
    let hangups = Hangups::listen()?;
    let (config, file, sims) = configure(args).await?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let gateway = Gateway::new(&config)?;
    let identity = config.server.tls.as_ref().map(ops::server_identity).transpose()?;
    let identity = identity.map(TlsIdentity::new);
    let public = bind(config.server.listen.iter().map(address)).await?;
    let public: Vec<Listener> = public
        .into_iter()
        .map(|listener| with_keepalive(listener, &config.server))
        .map(|listener| listener.map(|listener| with_optional_tls(listener, identity.as_ref())))
        .collect::<Result<_, _>>()?;
    let admin = bind(config.admin.listen.iter().copied().map(Address::Tcp)).await?;
    let (public_capacity, admin_capacity) = capacities(&gateway);
    announce::announce(&public, &admin, &sims, &config);

    let limits = ServeLimits {
        client_header: config.timeouts.client_header,
        keep_alive: KEEP_ALIVE,
        stall: config.timeouts.idle,
    };
    let (phase, mut servers) = serve_public(public, &gateway, limits, public_capacity)?;
    // The admin listener is not drained, so that the operator can observe the drain there.
    let token = config.admin.token.clone();
    let reloader = Reloader::new(gateway.clone(), config, file, args.overrides(), identity);
    let operator = AdminService::new(gateway.clone(), reloader.clone(), token);
    let _admin_phase = serve_admin(admin, &operator, limits, admin_capacity);
    tokio::spawn(housekeeping::maintain(gateway.clone()));
    tokio::spawn(reload::reload_on_changes(reloader.clone(), hangups));

    signals.next().await;
    let grace = reloader.config().server.grace;
    drain::drain(&gateway, &phase, &mut servers, grace, &mut signals).await;
    for sim in sims {
        sim.stop().await;
    }
    Ok(())
}

/// Serves clients on `listeners`. Returns the phase, by which the servers are stopped, and the tasks of the servers.
fn serve_public(
    listeners: Vec<Listener>,
    gateway: &Arc<Gateway>,
    limits: ServeLimits,
    capacity: Arc<Capacity>,
) -> Result<(watch::Sender<ShutdownPhase>, JoinSet<()>), AppError> {
    let (phase, watcher) = watch::channel(ShutdownPhase::Running);
    let service = Service {
        limits,
        capacity,
        workers: Some(Arc::new(Workers::start()?)),
    };
    let mut servers = JoinSet::new();
    let proxy = Proxy::new(gateway.clone());
    for listener in listeners {
        let proxy = proxy.clone();
        let recorder = proxy.clone();
        let handler = move |peer, request| proxy.clone().handle(peer, request);
        let refuse = move |peer, refusal| recorder.refuse(peer, refusal);
        servers.spawn(wire::serve(listener, service.clone(), watcher.clone(), handler, refuse));
    }
    Ok((phase, servers))
}

/// The numbers of connections that the public listeners and the admin listener allow. Logs what follows from the limit on
/// file descriptors, which is not raised again later.
fn capacities(gateway: &Gateway) -> (Arc<Capacity>, Arc<Capacity>) {
    let descriptors = wire::raise_descriptor_limit();
    let public = Capacity::of_process(gateway.connections.clone());
    log_limits(descriptors, public.limit());
    let reserve = (descriptors / ADMIN_DESCRIPTORS_DIVISOR).clamp(MIN_ADMIN_DESCRIPTORS, MAX_ADMIN_DESCRIPTORS);
    let admin = Capacity::new(ADMIN_CONNECTIONS, gateway.admin_connections.clone());
    (Arc::new(public), Arc::new(admin.with_reserve(reserve)))
}

/// Logs what follows from the limit on file descriptors.
fn log_limits(descriptors: usize, max_clients: usize) {
    if max_clients < FEW_CLIENTS {
        tracing::warn!(
            descriptors,
            max_clients,
            "the limit on file descriptors allows few client connections; raise it, for example by LimitNOFILE in the \
             systemd unit or --ulimit nofile of the container"
        );
    } else {
        tracing::info!(
            descriptors,
            max_clients,
            "the limit on file descriptors determines the maximum number of client connections"
        );
    }
}

/// Serves `operator` on `listeners` until the returned sender is dropped.
///
/// A client may be hostile until its request has shown the token. So the times for a head and for reading are short there.
fn serve_admin(
    listeners: Vec<Listener>,
    operator: &Arc<AdminService>,
    limits: ServeLimits,
    capacity: Arc<Capacity>,
) -> watch::Sender<ShutdownPhase> {
    let (phase, watcher) = watch::channel(ShutdownPhase::Running);
    let limits = ServeLimits {
        client_header: limits.client_header.min(ADMIN_TIME),
        stall: limits.stall.min(ADMIN_TIME),
        ..limits
    };
    let service = Service {
        limits,
        capacity,
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

/// The configuration, the file from which it was read, and the simulated accounts that run inside this process.
async fn configure(args: &ConfigArgs) -> Result<(Config, Option<File>, Vec<Sim>), AppError> {
    if args.is_embedded() {
        let (sims, upstreams) = embedded::start().await?;
        return Ok((Config::embedded(upstreams, &args.overrides())?, None, sims));
    }
    let file = args.file().map(File::read);
    let config = match &file {
        Some(file) => file.parse(&args.overrides())?,
        None => args.load()?,
    };
    Ok((config, file, Vec::new()))
}

fn address(listen: &Listen) -> Address {
    match listen {
        Listen::Tcp(address) => Address::Tcp(*address),
        Listen::Unix(path) => Address::Unix(path.clone()),
    }
}

async fn bind(addresses: impl Iterator<Item = Address>) -> Result<Vec<Listener>, AppError> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(Listener::bind(&address).await?);
    }
    Ok(listeners)
}

/// Returns the listener, with TCP keepalive if it is configured.
fn with_keepalive(listener: Listener, server: &ServerSettings) -> io::Result<Listener> {
    if server.keepalive.is_zero() {
        return Ok(listener);
    }
    listener.with_keepalive(server.keepalive)
}

/// Returns the listener, with TLS if `identity` is set.
fn with_optional_tls(listener: Listener, identity: Option<&Arc<TlsIdentity>>) -> Listener {
    match identity {
        Some(identity) => listener.with_tls(identity.clone()),
        None => listener,
    }
}
