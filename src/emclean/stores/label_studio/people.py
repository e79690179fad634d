"""Accounts of those who answer in Label Studio."""

from collections.abc import Sequence

from emclean.stores.label_studio.client import LabelStudioClient


def accounts(client: LabelStudioClient, addresses: Sequence[str]) -> dict[str, int]:
    """The numbers of the users with these e-mail addresses; who has no account gets one, without password."""
    known = {str(user.get("email")): int(user["id"]) for user in client.get("/api/users/")}
    for address in addresses:
        if address not in known:
            made = client.post("/api/users/", {"email": address, "username": address.split("@")[0]})
            known[address] = int(made["id"])
    return {address: known[address] for address in addresses}
