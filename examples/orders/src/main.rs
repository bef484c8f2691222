//! The worker: serves all five functions from one process. The runtime dials it; it needs to know nothing else.

use orders::cart::Cart;
use orders::inventory::Inventory;
use orders::loyalty::Loyalty;
use orders::order::Order;
use orders::payment::Wallets;

#[tokio::main]
async fn main() -> tandem::Result<()> {
    tandem::serve((Inventory, Wallets, Order, Cart, Loyalty)).await
}
