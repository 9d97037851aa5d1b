"""Derivatives of callbacks by rewriting their source: `reading` makes a program of it, `reverse` its transpose, `writing` the text."""
