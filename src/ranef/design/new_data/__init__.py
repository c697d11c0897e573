"""Rows to predict: new data, coded as the data of a model were."""
