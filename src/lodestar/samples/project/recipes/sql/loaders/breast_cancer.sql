-- Every table name is a file in data/: this reads data/breast_cancer.parquet.
SELECT * FROM breast_cancer
