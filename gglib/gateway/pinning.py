"""Trusting one certificate: that of a gateway whose own note tells what it is."""

from __future__ import annotations

import ssl

__all__ = ["pinned"]

#: X509_V_FLAG_NO_CHECK_TIME. Who is known by sight is so after the date on the paper, too; and
#: a gateway whose certificate has run out must be told of the new one.
_WHENEVER = 0x20_0000


def pinned(certificate_pem: str) -> ssl.SSLContext:
    """Return what trusts that very certificate, whatever it is called, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_WHENEVER)
    context.load_verify_locations(cadata=certificate_pem)
    return context
