"""Notices to people, by Apprise: an URL says both how and whom."""

from collections.abc import Sequence


def send(addresses: Sequence[str], title: str, text: str) -> list[str]:
    """Tell every address; those that could not be told."""
    if not addresses:
        return []
    from apprise import Apprise  # half a second, for those who have somebody to tell

    failed = []
    for address in addresses:
        post = Apprise()
        if not post.add(address) or not post.notify(text, title):
            failed.append(address)
    return failed
