//! A relay that only copies bytes: the least that anything between client and server costs.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// Serves until the process is ended. Prints the address first.
pub(crate) async fn serve(listen: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(to).await else { return };
            if client.set_nodelay(true).is_ok() && server.set_nodelay(true).is_ok() {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
