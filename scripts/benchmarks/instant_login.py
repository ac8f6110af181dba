"""The login function with a password check that takes no time, to measure the rest of a login."""

import argon2

import functions.login.main

argon2.PasswordHasher.verify = lambda *_: True  # type: ignore[method-assign]  # the purpose of this module
login = functions.login.main.login
