package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const certificateLife = 24 * time.Hour

// writeCertificates makes what a test of TLS needs: an authority, a certificate for servers and clients on this machine, the
// same one but expired, and one of an authority that nobody knows.
func writeCertificates(directory string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	now := time.Now()
	authority, err := newAuthority("tandem test authority", now)
	if err != nil {
		return err
	}
	stranger, err := newAuthority("unknown authority", now)
	if err != nil {
		return err
	}
	if err := writePEM(directory, "ca.pem", "CERTIFICATE", authority.certificate.Raw); err != nil {
		return err
	}
	if err := writePEM(directory, "stranger-ca.pem", "CERTIFICATE", stranger.certificate.Raw); err != nil {
		return err
	}
	if err := authority.issue(directory, "", now.Add(certificateLife)); err != nil {
		return err
	}
	if err := authority.issue(directory, "expired-", now.Add(-time.Hour)); err != nil {
		return err
	}
	return stranger.issue(directory, "stranger-", now.Add(certificateLife))
}

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(name string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-certificateLife), NotAfter: now.Add(certificateLife), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(raw)
	return &authority{certificate, key}, err
}

// issue writes <prefix>cert.pem and <prefix>key.pem.
func (a *authority) issue(directory, prefix string, end time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "tandem test"},
		NotBefore: end.Add(-2 * certificateLife), NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return err
	}
	if err := writePEM(directory, prefix+"cert.pem", "CERTIFICATE", raw); err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(directory, prefix+"key.pem", "PRIVATE KEY", private)
}

func writePEM(directory, name, kind string, data []byte) error {
	return os.WriteFile(filepath.Join(directory, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600)
}
