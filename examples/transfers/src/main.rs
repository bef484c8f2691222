//! The worker: serves the function `account`.

use transfers::Account;

#[tokio::main]
async fn main() -> tandem::Result<()> {
    tandem::serve(Account).await
}
